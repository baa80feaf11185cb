#!/usr/bin/env bash
# Transformers keeps packed documents apart only while the cache is off and no mask is given
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    Position ids that start again at 0 keep packed documents apart, whatever `use_cache` says; a mask of ones
#           changes nothing.
# Seen:     Only use_cache=False without a mask gives the second document the logits it has alone (to 1e-6). With the
#           default use_cache=True, or with a mask of ones, it reads the first document: logits differ by .18. Training mode
#           makes no difference.
# Matters:  A cache that is never used changes the loss. Packed training leaks from row to row by default.
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

import transformers

model.eval()
first, second = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[9, 10, 11]])
packed, positions = torch.cat([first, second], dim=1), torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
alone = model(second).logits
ones = torch.ones_like(packed)
off = {}
for cache in (False, True):
    for mask in (None, ones):
        logits = model(input_ids=packed, position_ids=positions, attention_mask=mask, use_cache=cache).logits[:, 4:]
        off[cache, mask is not None] = (logits - alone).abs().max().item()
print("transformers", transformers.__version__, {f"cache {c}, mask {m}": f"{d:.1e}" for (c, m), d in off.items()})
assert off.pop((False, False)) < 1e-5
assert min(off.values()) > 0.05
PY
