#!/usr/bin/env bash
# gpt-oss and OPT read packed documents across their borders, also without a cache and a mask
#
# Packages: torch==2.13.0, transformers==5.23.0
# Guess:    With the cache off and no mask, position ids that start again at 0 keep packed documents apart in every
#           decoder that takes position ids, as they do in Llama.
# Seen:     Llama gives the second document the same logits whatever the first one is. gpt-oss and OPT do not: their
#           models take `position_ids` and use them for positions, but do not hand them to `create_causal_mask`, so no
#           border is found. Nothing is said.
# Matters:  Training on packed rows (padding-free collators, flattened batches) leaks from row to row in these models.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0
venv/bin/python - <<'PY'
import torch
import transformers
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig, OPTConfig

shared = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
heads = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32}
configs = {
    "llama": LlamaConfig(**shared, **heads),
    "gpt_oss": GptOssConfig(**shared, **heads, num_local_experts=2, num_experts_per_tok=2, pad_token_id=0),
    "opt": OPTConfig(**shared, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64),
}
second = torch.tensor([[9, 10, 11, 12]])
firsts = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[40, 41, 42, 43]])
positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
off = {}
for name, config in configs.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        one, other = (
            model(input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits[:, 4:]
            for first in firsts
        )
    off[name] = float((one - other).abs().max() / one.abs().max())
print("transformers", transformers.__version__, {name: f"{found:.1e}" for name, found in off.items()})
assert off["llama"] < 1e-5
assert off["gpt_oss"] > 0.01
assert off["opt"] > 0.01
PY
