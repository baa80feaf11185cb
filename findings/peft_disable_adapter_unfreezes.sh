#!/usr/bin/env bash
# Asking the base model by PEFT's disable_adapter makes frozen adapter weights trainable
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2
# Guess:    `with model.disable_adapter()` leaves the model as it found it.
# Seen:     When the block ends, every adapter weight asks for a gradient: an adapter that was loaded for inference
#           (0 of 8 trainable before, 8 after), and half an adapter that somebody had frozen.
# Matters:  A loss against the untouched model (KL, DPO, soft targets) asks it once per update: what was frozen trains
#           from the second update on, if the optimizer knows it, and a frozen model takes memory for gradients.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
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

from peft import LoraConfig, PeftModel, __version__, get_peft_model


def trainable(model):
    return sum(parameter.requires_grad for parameter in model.parameters())


adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
for name, parameter in adapted.named_parameters():
    if "lora_A" in name:
        parameter.requires_grad = False
half = trainable(adapted)
with adapted.disable_adapter():
    pass
after_half = trainable(adapted)
adapted.save_pretrained("adapter")
loaded = PeftModel.from_pretrained(adapted.unload(), "adapter")
none = trainable(loaded)
with loaded.disable_adapter():
    pass
print("peft", __version__, "half frozen:", half, "->", after_half, " loaded:", none, "->", trainable(loaded))
assert (half, after_half, none, trainable(loaded)) == (4, 8, 0, 8)
PY
