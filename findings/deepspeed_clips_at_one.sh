#!/usr/bin/env bash
# Under DeepSpeed the Trainer clips gradients at 1.0, whatever max_grad_norm is, unless the configuration has a key for it
#
# Packages: deepspeed==0.19.8, accelerate==1.15.0, transformers==5.23.0, torch==2.13.0
# Guess:    max_grad_norm is the Trainer's own argument, so it holds; and where DeepSpeed's configuration names no
#           gradient_clipping, DeepSpeed's default holds, which is no clipping.
# Seen:     One step of plain SGD moves the weights by the rate times the norm of the clipped gradient. Without DeepSpeed that
#           norm is what max_grad_norm says (0.1; and the whole norm with 0, which switches clipping off). Under ZeRO 2 with
#           "gradient_clipping": "auto" it is the same. Without that key it is 1.0 in both cases: accelerate puts 1.0 into
#           the configuration. No word about it.
# Matters:  The same script trains with ten times the clipping limit, or with clipping where none was asked for, as soon as it
#           is launched under DeepSpeed; rates that were found without it are then compared with other updates.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 setuptools wheel ninja py-cpuinfo
DS_BUILD_OPS=0 venv/bin/python -m pip install --quiet --no-build-isolation deepspeed==0.19.8
export PATH="$work/venv/bin:$PATH"
cat > step.py <<'PY'
"""Prints how far one step of SGD moves the weights, over the rate: the norm of the clipped gradient."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

how, limit = sys.argv[1], float(sys.argv[2])
config = {
    "zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
}
config |= {"gradient_clipping": "auto"} if how == "auto" else {}
torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.2, **shape))
before = [p.detach().clone() for p in model.parameters()]
row = torch.arange(16) * 3 % 64
arguments = TrainingArguments(
    "out", max_steps=1, optim="sgd", learning_rate=0.01, lr_scheduler_type="constant", max_grad_norm=limit,
    deepspeed=None if how == "none" else config, per_device_train_batch_size=4, report_to="none", use_cpu=True,
    disable_tqdm=True, save_strategy="no",
)
rows = [{"input_ids": row, "labels": row}] * 4
trainer = Trainer(model, arguments, train_dataset=rows)
trainer.train()
moved = sum((p.detach() - b).square().sum() for p, b in zip(trainer.model.parameters(), before)).sqrt() / 0.01
print("norm", moved.item())
PY
export RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 CUDA_VISIBLE_DEVICES=
norm() { MASTER_PORT=$((29500 + RANDOM % 2000)) python step.py "$1" "$2" 2>/dev/null | awk '$1 == "norm" {print $2}'; }
python - "$(norm none 0.1)" "$(norm none 0)" "$(norm auto 0.1)" "$(norm auto 0)" "$(norm without 0.1)" "$(norm without 0)" <<'PY'
import sys

found = [float(word) for word in sys.argv[1:]]
names = [f"{how}, max_grad_norm={limit}" for how in ("no DeepSpeed", "auto", "without the key") for limit in (0.1, 0)]
for name, value in zip(names, found):
    print(f"{name}: {value:.3f}")
whole = found[1]
assert whole > 1.2
assert all(abs(a - b) < 1e-3 * b for a, b in zip(found, [0.1, whole, 0.1, whole, 1.0, 1.0]))
PY
