#!/usr/bin/env bash
# Bamba reads each next token at position 0 where a cache is given without positions
#
# Packages: torch==2.13.0, transformers==5.23.0
# Guess:    A loop of `model(next_token, past_key_values=cache)` gives the logits of the whole text in every decoder
#           that has a cache, as in Llama and Falcon-H1: the position is the length of the cache.
# Seen:     Bamba's logits are off by a few per cent of the largest in a tiny random model. `BambaModel.forward` counts
#           missing positions from 0, whatever the cache holds. With `position_ids` they are right. `generate` gives
#           positions itself, so it is right, too. Nothing is said.
# Matters:  Samplers and scorers with a loop of their own (rehearsal of own samples, speculative decoding, shared
#           prefixes) draw from another distribution, while `generate` hides it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0
venv/bin/python - <<'PY'
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

transformers.logging.set_verbosity_error()
shared = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
heads = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32}
mamba = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
kinds = {
    "llama": heads,
    "falcon_h1": {**heads, **mamba, "mamba_d_ssm": 64},
    "bamba": {**heads, **mamba, "attn_layer_indices": [1]},
}
off, same = {}, {}
for name, settings in kinds.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**shared, **settings})).eval()
    ids = torch.randint(5, 60, (1, 12))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        whole = model(input_ids=ids, use_cache=False).logits[0, 6:]
        for given in (False, True):
            out, found = model(input_ids=ids[:, :6], use_cache=True), []
            for at in range(6, 12):
                where = {"position_ids": torch.tensor([[at]])} if given else {}
                out = model(input_ids=ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True, **where)
                found.append(out.logits[0, -1])
            off[name, given] = float((torch.stack(found) - whole).abs().max() / whole.abs().max())
        settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
        with_cache, without = (model.generate(ids, use_cache=cache, **settings) for cache in (True, False))
        same[name] = bool((with_cache == without).all())
print("transformers", transformers.__version__)
for (name, given), found in off.items():
    print(f"{name:10} {'with' if given else 'without'} position_ids: off by {found:.1e} of the largest logit")
assert all(same.values())
assert all(found < 1e-5 for (name, given), found in off.items() if given or name != "bamba")
assert off["bamba", False] > 0.01
PY
