#!/usr/bin/env bash
# 'all-linear' adapts attention alone in one mixture of experts, and the router too in another
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2
# Guess:    `target_modules='all-linear'` adapts the same parts of every model: attention and experts, not the router.
# Seen:     gpt-oss: the four attention maps; no expert. Qwen3-MoE: attention, the experts, and the router's gate.
#           Neither says so (for Qwen3-MoE two warnings speak of patterns that were ignored).
# Matters:  Most weights of a mixture of experts are its experts. Two models compared 'with LoRA on all linear layers'
#           are trained in different parts.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
venv/bin/python - <<'PY'
import warnings

import torch
from peft import LoraConfig, __version__, get_peft_model
from transformers import AutoModelForCausalLM, GptOssConfig, Qwen3MoeConfig

warnings.simplefilter("ignore")
SIZES = dict(
    vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, num_experts_per_tok=2, pad_token_id=0, eos_token_id=1,
)
adapted = {}
for config in (GptOssConfig(num_local_experts=4, **SIZES), Qwen3MoeConfig(num_experts=4, moe_intermediate_size=32, **SIZES)):
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_config(config), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    names = [name for name, _ in model.named_parameters() if "lora_A" in name]
    adapted[config.model_type] = {part for part in ("self_attn", "mlp.experts", "mlp.gate", "mlp.router") for n in names if part in n}
print("peft", __version__, adapted)
assert adapted["gpt_oss"] == {"self_attn"}
assert adapted["qwen3_moe"] == {"self_attn", "mlp.experts", "mlp.gate"}
PY
