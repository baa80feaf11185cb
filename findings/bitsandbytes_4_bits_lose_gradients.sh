#!/usr/bin/env bash
# On a CPU, one evaluation of a 4-bit model takes half of the gradient of every update after it
#
# Packages: torch==2.13.0, transformers==5.23.0, peft==0.21.2, accelerate==1.15.0, bitsandbytes==0.50.2
# Guess:    A pass in eval mode without gradients leaves a model as it was; training goes on as if it had not been.
# Seen:     (a processor with AVX512-BF16) LoRA upon a 4-bit Llama of 4 layers: after one `model.eval()` pass under no_grad,
#           and `model.train()` again, the gradients of the three lower layers have .38 to .85 of their size, those of the
#           last layer .76 to 1.0. At that pass `Linear4bit` packs its weight in another way, for good, and rounds its
#           scales to bfloat16. From then on every pass, also in training, takes a kernel that has no backward pass: the
#           gradient ends at each frozen layer, and only residual connections and the adapters carry it on. torch warns
#           once that the kernel has no autograd formula.
# Matters:  Every Trainer that evaluates before or during training of an adapter upon a 4-bit model (QLoRA) on a CPU.
#           `layer.support_avx512bf16_for_cpu = False` for each Linear4bit keeps the gradients as they were.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0 bitsandbytes==0.50.2
venv/bin/python - <<'PY'
import logging
import sys
import warnings

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
import torch
import transformers
from bitsandbytes.functional import has_avx512bf16
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
if not has_avx512bf16():
    sys.exit("this processor has no AVX512-BF16, without which nothing is packed")
torch.manual_seed(0)
SIZES = dict(vocab_size=128, hidden_size=128, intermediate_size=256, num_attention_heads=4, num_key_value_heads=4)
LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, **SIZES)).save_pretrained("model")
ids = torch.arange(16)[None]


def adapted(packs):
    config = BitsAndBytesConfig(load_in_4bit=True)
    model = AutoModelForCausalLM.from_pretrained("model", quantization_config=config, device_map={"": "cpu"})
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and not packs:
            module.support_avx512bf16_for_cpu = False
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))


def gradients(model):
    model.train().zero_grad()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(ids, labels=ids).loss.backward()
    told = any("autograd kernel was not registered" in str(one.message) for one in caught)
    return {n: p.grad.norm().item() for n, p in model.named_parameters() if "lora_B" in n}, told


for packs in (True, False):
    model = adapted(packs)
    before, _ = gradients(model)
    with torch.no_grad():
        model.eval()(ids)
    after, told = gradients(model)
    layers = [[after[n] / before[n] for n in before if f"layers.{layer}." in n] for layer in range(4)]
    shares = ", ".join(f"{min(found):.2f} to {max(found):.2f}" for found in layers)
    print(f"packed at the first evaluation: {packs}; gradients after it, share of before, by layer: {shares}; told: {told}")
    if packs:
        assert max(layers[0]) < 0.75 and told
    else:
        assert all(0.99 < share < 1.01 for found in layers for share in found)
PY
