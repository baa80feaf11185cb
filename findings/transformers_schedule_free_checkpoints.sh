#!/usr/bin/env bash
# With a schedule-free optimizer, Trainer saves other weights than it evaluates, unless it evaluates just before it saves
#
# Packages: transformers==5.23.0, schedulefree==1.4.1, torch==2.13.0, accelerate==1.15.0, datasets==5.2.0
# Guess:    optim="schedule_free_adamw" trains at one point and answers at another, an average. Trainer knows that, since it
#           switches the optimizer for an evaluation; so it does for checkpoints and for the model that is left after train().
# Seen:     It switches for evaluations alone. Of two runs with the same seed, the one that evaluates at the last step saves
#           the average (held-out loss .802). The one that does not saves the point of training (.843), and train() leaves
#           that in memory; evaluate() afterwards says .802 of the run whose checkpoint has .843. With AdamW both checkpoints
#           are the same to the bit.
# Matters:  Whether a run evaluates decides what it saves, and a loss that evaluate() told is not that of the files. Call
#           trainer.optimizer.eval() before save_model(), or evaluate at each step that saves.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet transformers==5.23.0 schedulefree==1.4.1 torch==2.13.0 accelerate==1.15.0 \
    datasets==5.2.0
cat > shown.py <<'PY'
import random

import torch
import transformers
from datasets import Dataset
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

draw = random.Random(0)
follow = {w: draw.sample(range(200), 2) for w in range(200)}


def row():
    """Each word is followed by one of two words, at 7 to 3."""
    found = [draw.randrange(200)]
    while len(found) < 16:
        found.append(follow[found[-1]][draw.random() < 0.3])
    return {"input_ids": found, "labels": found}


learned, held_out = (Dataset.from_list([row() for _ in range(n)]) for n in (512, 64))
ids = torch.tensor(held_out["input_ids"][:])


def loss(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


def run(name, optim, **settings):
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=200, **shape))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=name, optim=optim, max_steps=60, save_strategy="steps", save_steps=60, learning_rate=1e-2,
            lr_scheduler_type="constant", per_device_train_batch_size=16, per_device_eval_batch_size=64,
            report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no", **settings,
        ),
        train_dataset=learned, eval_dataset=held_out,
    )
    trainer.train()
    left = loss(model)
    saved = loss(LlamaForCausalLM.from_pretrained(f"{name}/checkpoint-60"))
    return trainer, saved, left, load_file(f"{name}/checkpoint-60/model.safetensors")


print("transformers", transformers.__version__)
found = {}
for optim in ("adamw_torch", "schedule_free_adamw"):
    trainer, alone, left, weights = run(f"{optim}-alone", optim)
    _, beside, _, others = run(f"{optim}-beside", optim, eval_strategy="steps", eval_steps=60)
    apart = max(float((value - others[name]).abs().max()) for name, value in weights.items())
    said = trainer.evaluate()["eval_loss"]
    print(optim, f"saved {alone:.3f}, left in memory {left:.3f}, evaluate() afterwards {said:.3f};",
          f"saved by the run that evaluates {beside:.3f}; weights of the two checkpoints differ by {apart:.4f}")
    found[optim] = alone, left, said, beside, apart
alone, left, said, beside, apart = found["adamw_torch"]
assert apart == 0 and abs(alone - said) < 1e-3 and alone == left
alone, left, said, beside, apart = found["schedule_free_adamw"]
assert apart > 0.01 and abs(alone - left) < 1e-6
assert alone > said + 0.02 and abs(said - beside) < 1e-3
PY
HF_HUB_OFFLINE=1 venv/bin/python shown.py
