#!/usr/bin/env bash
# Transformers logs to trackio without a step: each evaluation moves all later points of a curve one step on
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, trackio==0.43.0
# Guess:    What the Trainer logs at update 4 stands at step 4, as in TensorBoard, which gets the step.
# Seen:     trackio counts the calls. With an evaluation after every second update, the loss of update 6 stands at step 7
#           and its evaluation at step 8; the update itself is one more number, train/global_step.
# Matters:  Two runs that differ only in how often they are evaluated seem to learn at another speed, and a loss and an
#           accuracy of the same update do not stand above each other.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 trackio==0.43.0
export TRACKIO_DIR="$work/trackio" TRACKIO_PROJECT=steps
venv/bin/python - > said 2>&1 <<'PY' || { cat said >&2; exit 1; }
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4,
    )
)
rows = [{"input_ids": list(range(5, 13)), "labels": list(range(5, 13))}] * 4
arguments = TrainingArguments(
    "out", max_steps=6, logging_steps=1, eval_strategy="steps", eval_steps=2, save_strategy="no", use_cpu=True,
    report_to="trackio", disable_tqdm=True,
)
Trainer(model, arguments, train_dataset=rows, eval_dataset=rows).train()
PY
venv/bin/python - <<'PY'
import json
import pathlib
import sqlite3

(file,) = pathlib.Path("trackio").rglob("*.db")
seen = {"train/loss": [], "eval/loss": []}
for step, text in sqlite3.connect(file).execute("select step, metrics from metrics order by id"):
    numbers = json.loads(text)
    for name in seen.keys() & numbers.keys():
        seen[name].append((numbers["train/global_step"], step))
for name, points in seen.items():
    print(name, "(update, step of trackio):", *points)
assert [update for update, _ in seen["train/loss"]] == [1, 2, 3, 4, 5, 6]
assert dict(seen["train/loss"])[6] == 7
assert dict(seen["eval/loss"])[6] == 8
PY
