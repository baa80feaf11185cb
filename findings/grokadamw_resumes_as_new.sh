#!/usr/bin/env bash
# optim="grokadamw": a checkpoint that is resumed starts its optimizer anew, and the first update is ten times the rate
#
# Packages: grokadamw==0.1.2, torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    Trainer writes optimizer.pt and reads it, so a run that is resumed ends in the weights of one that was not
#           interrupted, as with adamw_torch. A first update of an Adam moves each weight by the learning rate at most.
# Seen:     With adamw_torch the two runs are the same to the bit. With grokadamw the resumed one differs from the whole one
#           by 2.5 times of what the whole one moved since the checkpoint, and it is the same to the bit as a run whose
#           optimizer.pt was deleted. The moments are in the file, and the file of the resumed run is twice as large: they lie
#           in the parameter groups under the parameter itself (_update_group in grokadamw.py), and the parameters of a new
#           process are other objects. A new start also costs: tensor i of a group has beta1 * 0.9 ** i, but the correction of
#           the bias takes beta1 alone (so does the formula on its page, for layers in place of tensors). The first update
#           moves q_proj of the first layer by 1.9 times the rate and the LM head by 9.6 times. No warning.
# Matters:  Every resume throws the moments away and takes a step of up to ten times the rate that was set; a warm-up that was
#           to avoid that is already over.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet grokadamw==0.1.2 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > shown.py <<'PY'
import os
import pathlib
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


def fresh():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape))


torch.manual_seed(1)
rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 64, (40, 12)).tolist()]
rate = 1e-3


def trained(optim, steps, resume=None):
    arguments = TrainingArguments(
        optim, optim=optim, max_steps=steps, save_steps=10, per_device_train_batch_size=2, learning_rate=rate,
        lr_scheduler_type="constant", report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )
    trainer = Trainer(fresh(), arguments, train_dataset=rows)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


print("grokadamw", version("grokadamw"))
apart, grown, first = {}, {}, {}
for optim in ("adamw_torch", "grokadamw"):
    half = pathlib.Path(optim, "checkpoint-10")
    written = pathlib.Path(optim, "checkpoint-20", "optimizer.pt")
    whole = trained(optim, 20)
    size = written.stat().st_size
    moved = (weights(whole) - weights(LlamaForCausalLM.from_pretrained(half))).norm()
    resumed = trained(optim, 20, str(half))
    grown[optim] = written.stat().st_size / size
    os.remove(half / "optimizer.pt")
    without = trained(optim, 20, str(half))
    apart[optim] = [((weights(x) - weights(y)).norm() / moved).item() for x, y in ((whole, resumed), (resumed, without))]
    print(f"{optim}: resumed and whole differ by {apart[optim][0]:.2f}, resumed with and without optimizer.pt by "
          f"{apart[optim][1]:.2f} of what the whole run moved; optimizer.pt grows by {grown[optim]:.2f}")
    one, start = dict(trained(optim, 1).named_parameters()), dict(fresh().named_parameters())
    names = ("model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.down_proj.weight", "lm_head.weight")
    first[optim] = [((one[name] - start[name]).abs().median() / rate).item() for name in names]
    print(f"{optim}: the first update by the rate:", dict(zip(names, (round(x, 2) for x in first[optim]))))
assert apart["adamw_torch"][0] == 0 and apart["adamw_torch"][1] > 0.5 and grown["adamw_torch"] < 1.01
assert apart["grokadamw"][0] > 0.5 and apart["grokadamw"][1] == 0 and grown["grokadamw"] > 1.9
assert all(abs(x - 1) < 0.1 for x in first["adamw_torch"])
assert first["grokadamw"][0] < 2.5 and first["grokadamw"][2] > 9
PY
HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore venv/bin/python shown.py
