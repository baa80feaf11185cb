#!/usr/bin/env bash
# A frozen model in bfloat16 copies its LM head for each row of a batch of prompts, one that could train does not
#
# Packages: torch==2.13.0 (the CPU build; seen on a processor with AVX512-BF16), transformers==5.23.0
# Guess:    requires_grad_(False) changes nothing under no_grad, and logits_to_keep=1, which generate sets for the prompt,
#           takes less memory than all logits.
# Seen:     hidden[:, -1:] keeps the strides of the whole prompt. Where the head's weight requires a gradient torch folds
#           the rows into one product; where it does not, it multiplies row by row, on a processor in bfloat16 with a copy
#           of the weight for each: 8 rows copy the head 8 times, 205 MB for 50,000 words of width 256. hidden[:, -1],
#           without the axis of length 1, copies nothing.
# Matters:  PEFT freezes the base. The head of a vocabulary of 151,936 words and width 2,048 has 0.6 GB: a batch of 8 prompts
#           needs 5 GB for a moment. In a chat with a model of 135 M parameters a third of the prompt's time was these copies.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0
venv/bin/python - <<'PY' 2> said || { cat said >&2; exit 1; }
import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=50_000, hidden_size=256, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=4,
)
ids = torch.arange(8 * 20).reshape(8, 20)


def copied(model, last):
    """MB that were allocated by copies while the logits of 8 prompts' last positions were computed."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        last(model)
    return sum(event.cpu_memory_usage for event in seen.key_averages() if event.key == "aten::clone") / 1e6


def by_the_model(model):
    model(input_ids=ids, logits_to_keep=1, use_cache=False)


def without_the_axis(model):
    model.lm_head(model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1])


model = LlamaForCausalLM(config).eval()
found = {}
for dtype in (torch.float32, torch.bfloat16):
    for frozen in (False, True):
        model.to(dtype).requires_grad_(not frozen)
        for way in (by_the_model, without_the_axis):
            found[dtype, frozen, way] = copied(model, way)
            print(f"transformers {transformers.__version__} {dtype} frozen {frozen} {way.__name__}", end=": ")
            print(f"{found[dtype, frozen, way]:.0f} MB")
assert found.pop((torch.bfloat16, True, by_the_model)) > 190
assert max(found.values()) < 5, found
PY
