#!/usr/bin/env bash
# Phi-3 with longrope answers a short row otherwise when a longer row stands in the same batch
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    A row's logits do not depend on the other rows of a batch, padding apart.
# Seen:     Transformers switches all rows to the long factors when the longest row of the batch passes the original
#           length. The short row's logits change.
# Matters:  Losses and answers depend on how rows are batched; nothing random is involved, so it looks reproducible.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
venv/bin/python - <<'PY'
import torch
import transformers
from transformers import Phi3Config, Phi3ForCausalLM

torch.manual_seed(0)
half = 4
model = Phi3ForCausalLM(
    Phi3Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0, eos_token_id=1, max_position_embeddings=64,
        original_max_position_embeddings=8,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * half, "long_factor": [4.0] * half,
            "original_max_position_embeddings": 8,
        },
    )
).eval()


def answer(*rows):
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=(ids != 0).long()).logits[0, : len(rows[0])]


short, also_short, long = [5, 6, 7, 8], list(range(5, 13)), list(range(5, 17))
gap = (answer(short) - answer(short, long)).abs().max().item()
near = (answer(short) - answer(short, also_short)).abs().max().item()
print("transformers", transformers.__version__, f"beside 12 tokens: {gap:.1e}, beside 8 tokens: {near:.1e}")
assert near < 1e-6 < 1e-4 < gap
PY
