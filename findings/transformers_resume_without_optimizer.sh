#!/usr/bin/env bash
# Trainer resumes from a checkpoint that has lost its optimizer, and says nothing
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    A checkpoint without optimizer.pt is refused, or a warning says that the optimizer starts anew.
# Seen:     resume_from_checkpoint goes on with fresh moments of Adam, at the old learning rate, without an error or a
#           warning; the weights it ends in differ from those of a run that was never interrupted.
# Matters:  A disk that ran full or a cleaned-up folder changes the experiment and leaves no trace.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
venv/bin/python - <<'PY'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4,
    )
)

import contextlib
import copy
import io
import os
import warnings

import transformers
from transformers import Trainer, TrainingArguments

start = copy.deepcopy(model.state_dict())
rows = [{"input_ids": [n + 3] * 6, "labels": [n + 3] * 6} for n in range(8)]


def trained(resume=None):
    model.load_state_dict(start)
    arguments = TrainingArguments(
        "out", max_steps=6, save_steps=3, per_device_train_batch_size=1, learning_rate=1e-3, use_cpu=True,
        report_to="none", disable_tqdm=True, seed=0,
    )
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Trainer(model, arguments, train_dataset=rows).train(resume_from_checkpoint=resume)
    weights = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
    return weights, [str(one.message) for one in told if "optim" in str(one.message)]


whole, _ = trained()
resumed, _ = trained("out/checkpoint-3")
os.remove("out/checkpoint-3/optimizer.pt")
torn, told = trained("out/checkpoint-3")
print("transformers", transformers.__version__, f"off by {(torn - whole).abs().max().item():.1e}, warnings: {told}")
assert torch.equal(whole, resumed)
assert not torch.equal(whole, torn)
assert told == []
PY
