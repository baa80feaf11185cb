#!/usr/bin/env bash
# With AdaLoRA eval_loss holds a penalty of the adapter, and training holds it once for each micro-batch
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2
# Guess:    AdaLoRA's penalty (its matrices should be orthogonal) belongs to training. eval_loss is the loss of the held-out
#           tokens, as with LoRA, and an update of 8 rows is the same at once or in 8 micro-batches.
# Seen:     PEFT adds orth_reg_weight (.5) times the penalty to every loss that the model returns, in eval mode and under
#           disable_adapter too. A small Llama that learns 8 rows by heart: eval_loss of 8 others falls from 6.346 to 4.692,
#           while their tokens, by the logits, get worse, 4.656 to 4.667; the base itself, which did not change, has 6.346 and
#           then 4.682. Trainer divides the tokens' loss by all tokens of an update, but the penalty comes with every
#           micro-batch: in 8 of them its gradient is 8 times that of the same rows at once. With LoRA eval_loss is the loss
#           of the tokens, and the gradients are the same.
# Matters:  eval_loss cannot be compared with LoRA's or with the base's, its exp is no perplexity, and early stopping follows
#           the penalty. A batch that is cut into parts for memory trains another model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
cat > shown.py <<'PY'
from importlib.metadata import version

import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

draw = torch.Generator().manual_seed(0)
rows = torch.randint(0, 96, (16, 16), generator=draw)
learned, held_out = ([{"input_ids": one, "labels": one} for one in part] for part in (rows[:8], rows[8:]))


def adapted(config):
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=96, initializer_range=0.05, **shape))
    return get_peft_model(model, config)


def own_loss(model):
    """The mean loss of the held-out tokens, from the logits."""
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=rows[8:]).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), rows[8:, 1:].flatten()).item()


def trainer(model, micro, steps, callbacks=()):
    args = TrainingArguments(
        "out", max_steps=steps, per_device_train_batch_size=micro, gradient_accumulation_steps=8 // micro, learning_rate=5e-3,
        optim="adamw_torch" if steps > 1 else "sgd", lr_scheduler_type="constant", max_grad_norm=0, report_to="none",
        use_cpu=True, disable_tqdm=True, logging_strategy="no", save_strategy="no", per_device_eval_batch_size=8,
    )
    return Trainer(model, args, train_dataset=learned, eval_dataset=held_out, callbacks=list(callbacks))


class Gradient(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **more):
        self.found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def gradient(config, micro):
    seen = Gradient()
    trainer(adapted(config), micro, 1, [seen]).train()
    return seen.found


def configs(**more):
    targets = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    return {"LoRA": LoraConfig(**targets), "AdaLoRA": AdaLoraConfig(total_step=100, **targets, **more)}


print("peft", version("peft"))
for name, config in configs().items():
    run = trainer(adapted(config), 8, 60)
    said, own, base = [], [], []
    for part in ("before", "after"):
        if part == "after":
            run.train()
        said.append(run.evaluate()["eval_loss"])
        own.append(own_loss(run.model))
        with run.model.disable_adapter():
            base.append(run.evaluate()["eval_loss"])
    print(f"{name}, before and after 60 steps:")
    for what, values in (("eval_loss", said), ("loss of the held-out tokens", own), ("eval_loss of the base", base)):
        print(f"    {what}", [round(x, 3) for x in values])
    if name == "LoRA":
        assert max(abs(a - b) for a, b in zip(said, own)) < 1e-4 and abs(base[0] - base[1]) < 1e-4
    else:
        assert said[0] - own[0] > 1 and base[0] - base[1] > 1
        assert said[1] < said[0] - 1 and own[1] > own[0]  # eval_loss falls, the held-out tokens are predicted worse
ratios = {}
for name, config in configs().items():
    whole, parts = gradient(config, 8), gradient(config, 1)
    ratios[name] = {n.split(".layers.")[1]: (parts[n].norm() / whole[n].norm()).item() for n in whole if whole[n].norm() > 0}
    low, high = min(ratios[name].values()), max(ratios[name].values())
    print(f"{name}: gradient of an update in 8 micro-batches by that of the same rows at once: {low:.2f} to {high:.2f}")
assert all(abs(x - 1) < 1e-3 for x in ratios["LoRA"].values())
assert max(ratios["AdaLoRA"].values()) > 7
PY
HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore venv/bin/python shown.py
