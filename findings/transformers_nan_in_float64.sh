#!/usr/bin/env bash
# Eager attention gives NaN for real tokens of padded rows in float64, and right numbers in float32
#
# Packages: torch==2.13.0, transformers==5.23.0
# Guess:    A model in float64 gives the logits of float32 with more digits, padded rows or not.
# Seen:     A row that is padded on the left has NaN logits at all its real tokens, in a plain Llama. With a sliding window,
#           padding on the right does it too. The row without padding is right. Hidden places get the smallest number of the
#           model's format, -1.8e308; the softmax is taken in float32, where that is -infinity, and a padded place that sees
#           nothing else becomes NaN. The next layer multiplies it by 0 and adds it to the real tokens. With SDPA the
#           float64 logits are finite.
# Matters:  float64 is what one takes to check a method's numbers, with eager attention and a batch of two lengths.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0
venv/bin/python - <<'PY'
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

transformers.logging.set_verbosity_error()
SMALL = dict(
    vocab_size=99, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
)
ids = torch.arange(3, 27).view(2, 12)
left = torch.ones_like(ids)
left[1, :7] = 0


def lost(model, mask):
    """Returns how many real tokens of the whole and of the padded row have NaN logits."""
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    return [int((row.isnan().any(-1) & there.bool()).sum()) for row, there in zip(logits, mask)]


def made(kind, dtype, attention):
    torch.manual_seed(0)
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM)}[kind]
    window = {"sliding_window": 4} if kind == "mistral" else {}
    return model(config(**SMALL, **window, attn_implementation=attention)).to(dtype).eval()


print("torch", torch.__version__, "transformers", transformers.__version__)
seen = {}
for kind in ("llama", "mistral"):
    for dtype in (torch.float32, torch.float64):
        for attention in ("eager", "sdpa"):
            model = made(kind, dtype, attention)
            found = lost(model, left), lost(model, left.flip(1))
            seen[kind, dtype, attention] = found
            print(f"{kind}, {dtype}, {attention}: real tokens with NaN, padded left {found[0]}, right {found[1]}")
none = [0, 0]
for (kind, dtype, attention), found in seen.items():
    if dtype == torch.float64 and attention == "eager":
        assert found == ([0, 5], [0, 5] if kind == "mistral" else none), found
    else:
        assert found == (none, none), found
PY
