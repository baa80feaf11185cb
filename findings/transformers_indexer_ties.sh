#!/usr/bin/env bash
# A model with a top-k indexer (GLM-5, DeepSeek-V3.2) reads a row otherwise when padding stands behind it
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    Padding on the right that the mask hides does not change a causal model's logits.
# Seen:     The indexer scores a token with exactly 0 where all its heads are below 0 (a ReLU). Among equal scores
#           torch.topk takes other ones when the row is wider, so a token attends to other tokens. It happens in some of
#           64 rows in each of 4 random models that choose 4 tokens.
# Matters:  The loss of a row depends on the longest row of its batch, and a cache answers otherwise than a whole row.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
venv/bin/python - <<'PY'
import torch
import transformers
from transformers import GlmMoeDsaConfig, GlmMoeDsaForCausalLM


def gap(seed, chosen):
    """The largest difference of logits of 64 rows, with 3 tokens of hidden padding and without, relative to the largest."""
    torch.manual_seed(seed)
    model = GlmMoeDsaForCausalLM(
        GlmMoeDsaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
            topk_group=1, q_lora_rank=16, kv_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
            index_n_heads=4, index_head_dim=8, index_topk=chosen, pad_token_id=0, eos_token_id=1,
            initializer_range=0.2,
        )
    ).eval()
    ids = torch.randint(2, 64, (64, 9))
    padded, mask = torch.cat([ids, ids[:, :3] * 0], 1), torch.tensor([[1] * 9 + [0] * 3]).repeat(64, 1)
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=mask[:, :9], use_cache=False).logits
        beside = model(input_ids=padded, attention_mask=mask, use_cache=False).logits[:, :9]
    return float((alone - beside).abs().max() / alone.abs().max())


few, all_of_them = [gap(seed, 4) for seed in range(4)], [gap(seed, 16) for seed in range(4)]
print("transformers", transformers.__version__, f"4 of 9 tokens: {max(few):.1e}, all: {max(all_of_them):.1e}")
assert min(few) > 1e-2
assert max(all_of_them) < 1e-4, "where all tokens are chosen, there is nothing to choose"
PY
