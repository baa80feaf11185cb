#!/usr/bin/env bash
# TrainingArguments(fsdp=True) trains with DDP on CPU processes, and says nothing
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    fsdp=True shards the model over the processes of torchrun, or refuses to where it cannot.
# Seen:     On two CPU processes the model is a DistributedDataParallel, no parameter is a DTensor, and
#           trainer.is_fsdp_enabled is False. torch's own fully_shard shards on the same two processes.
# Matters:  A test on CPUs that sets fsdp=True passes and has tried nothing of FSDP.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > train.py <<'PY'
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


def made():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2,
        )
    )


def sharded(model):
    return sum(isinstance(parameter, DTensor) for parameter in model.parameters())


rows = [{"input_ids": [n + 1] * 8, "labels": [n + 1] * 8} for n in range(16)]
args = TrainingArguments(
    "out", fsdp=True, fsdp_config={"version": 2}, use_cpu=True, max_steps=1, report_to="none", disable_tqdm=True,
    save_strategy="no",
)
trainer = Trainer(made(), args, train_dataset=rows)
trainer.train()
trained = trainer.model_wrapped
own = fully_shard(made())
print(type(trained).__name__, "with", sharded(trained), "DTensors; fully_shard:", sharded(own), flush=True)
assert type(trained).__name__ == "DistributedDataParallel"
assert (trainer.is_fsdp_enabled, sharded(trained)) == (False, 0)
assert sharded(own) == len(list(own.parameters()))
PY
CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 venv/bin/torchrun --nproc-per-node 2 train.py
