"""Pretraining from scratch: a tokenizer and a model made for a text, trained once per arm and seed, and compared.

    run = load_pretraining("runs/guidance_masked.yaml")
    pretrain(run)

writes table.md: the held-out loss of every arm, and how soon each is at the plain arm's last one. With a `grid` in
the file, `over_grid(run)` does so at every learning rate and warm-up.
"""
