#!/usr/bin/env bash
# After Trainer.train() with bf16 the model itself goes on computing in bfloat16
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    The trainer computes in bfloat16 while it trains; afterwards model(...) is float32, as its weights are.
# Seen:     model.forward stays wrapped in an autocast: its logits say float32 and differ by more than 1e-4 from those of
#           a new model with the same weights. A fresh object, or the saved model, answers otherwise than the one just trained.
# Matters:  Numbers measured before training (float32) and after it (bfloat16) are compared as if they were alike.
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
import io

import transformers
from transformers import Trainer, TrainingArguments

rows = [{"input_ids": list(range(5, 13)), "labels": list(range(5, 13))}] * 2
arguments = TrainingArguments(
    "out", max_steps=1, bf16=True, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
)
with contextlib.redirect_stdout(io.StringIO()):
    Trainer(model, arguments, train_dataset=rows).train()
again = LlamaForCausalLM(model.config)
again.load_state_dict(model.state_dict())
tokens = torch.arange(12)[None] + 2
with torch.no_grad():
    trained, fresh = model.eval()(tokens).logits, again.eval()(tokens).logits
print("transformers", transformers.__version__, trained.dtype, f"{(trained - fresh).abs().max().item():.1e}")
assert trained.dtype == fresh.dtype == torch.float32
assert (trained - fresh).abs().max() > 1e-4
PY
