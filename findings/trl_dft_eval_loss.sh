#!/usr/bin/env bash
# SFTTrainer with loss_type='dft' evaluates by DFT too: an untrained model gets the eval_loss of a trained one
#
# Packages: trl==1.16.0, torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, datasets==5.2.0
# Guess:    loss_type says what is trained; eval_loss is the loss of the held-out tokens, whose exp is the perplexity, and
#           whichever loss it is, a lower one is a better model.
# Seen:     eval_loss is DFT's own, each token's -p log p, which is near 0 for a token that is known and for one that is not
#           known at all (the most is at p = .37). Evaluated before training and every 20 steps it says .026, .178, .123, .043,
#           .029, .026, while the held-out loss is 5.32, 3.06, 2.63, 3.06, 3.23, 3.27. Of the tokens the untrained model
#           guesses .006 right, the others .54 to .58. load_best_model_at_end keeps the checkpoint with the highest held-out
#           loss of the five. With loss_type='nll' eval_loss is the model's own loss.
# Matters:  Runs of 'nll' and 'dft' cannot be compared by eval_loss, its exp is no perplexity, and early stopping or
#           load_best_model_at_end can go the wrong way; `metric_for_best_model` has to name something else.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet trl==1.16.0 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0
cat > shown.py <<'PY'
import random

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

words = [f"w{i}" for i in range(200)]
kinds = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*words, "<pad>", "<eos>"])}, unk_token="<pad>"))
kinds.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=kinds, pad_token="<pad>", eos_token="<eos>")

draw = random.Random(0)
follow = {w: draw.sample(words, 2) for w in words}


def text():
    """A row in which each word is followed by one of two words, at 7 to 3."""
    row = [draw.choice(words)]
    while len(row) < 16:
        row.append(follow[row[-1]][draw.random() < 0.3])
    return {"text": " ".join(row)}


learned, held_out = (Dataset.from_list([text() for _ in range(n)]) for n in (512, 64))
ids = tokenizer([row + " <eos>" for row in held_out["text"]], return_tensors="pt").input_ids


def own_loss(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


own = []


class Own(TrainerCallback):
    def on_evaluate(self, args, state, control, model=None, **more):
        own.append(own_loss(model))


def run(loss_type, steps):
    own.clear()
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    trainer = SFTTrainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=202, **shape)),
        args=SFTConfig(
            output_dir=loss_type, loss_type=loss_type, max_steps=steps, eval_on_start=True, eval_strategy="steps",
            eval_steps=20, save_strategy="steps", save_steps=20, load_best_model_at_end=True, learning_rate=3e-3,
            per_device_train_batch_size=16, per_device_eval_batch_size=64, report_to="none", use_cpu=True, bf16=False,
            gradient_checkpointing=False, disable_tqdm=True, logging_strategy="no",
        ),
        train_dataset=learned, eval_dataset=held_out, processing_class=tokenizer, callbacks=[Own()],
    )
    trainer.train()
    said = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    right = [entry["eval_mean_token_accuracy"] for entry in trainer.state.log_history if "eval_loss" in entry]
    for name, values in (("eval_loss", said), ("own loss", own), ("tokens right", right)):
        print(loss_type, name, [round(x, 3) for x in values])
    return said, list(own), own_loss(trainer.model), right


print("trl", trl.__version__)
said, truth, kept, _ = run("nll", 40)
assert max(abs(a - b) for a, b in zip(said, truth)) < 1e-3
assert abs(kept - min(truth)) < 1e-3
said, truth, kept, right = run("dft", 100)
print("dft: own loss of the kept checkpoint", round(kept, 2), "of the best one", round(min(truth), 2))
assert max(said) < 0.3 and min(truth) > 2
assert right[0] < 0.05 and min(right[1:]) > 0.5
assert said[0] < min(said[1:4])  # the untrained model is said to be better than the trained ones
assert said[-1] < said[2] and truth[-1] > truth[2] + 0.3
assert kept > min(truth) + 0.3 and abs(kept - max(truth[1:])) < 1e-3
PY
HF_HUB_OFFLINE=1 venv/bin/python shown.py
