#!/usr/bin/env bash
# merge_and_unload() on a model in quanto's 8 bits gives back the base model: the adapter is gone, and nothing is said
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2, optimum-quanto==0.2.7
# Guess:    Merging adds the adapter to the weights and rounds them again: the answers stay, up to that rounding. Where PEFT
#           cannot merge into a kind of weight, it raises an error.
# Seen:     LoRA trains upon QuantoConfig(weights="int8"), is saved and loaded, and answers alike. merge_and_unload() then
#           returns a model whose logits are exactly those of the base without the adapter, also with safe_merge=True,
#           which is there to check merged weights. merge_adapter() does the same, and LoHa, LoKr and IA3 are lost too.
#           Into the same weights without quanto the merge is right to 1e-6. No error and no warning.
# Matters:  The model that is handed on after training is the one before it. A loss measured before the merge says nothing
#           of it. Merge into the base that is not quantized, and quantize what comes out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 optimum-quanto==0.2.7
cat > shown.py <<'PY'
import logging
import warnings
from importlib.metadata import version

import torch
import transformers
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, QuantoConfig

transformers.logging.disable_progress_bar()
said = []


class Heard(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


for name in (None, "transformers", "peft"):
    logging.getLogger(name).addHandler(Heard())
torch.manual_seed(0)
shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
LlamaForCausalLM(LlamaConfig(vocab_size=96, initializer_range=0.05, **shape)).save_pretrained("base")
ids = torch.randint(0, 96, (4, 12))
targets = ["q_proj", "v_proj", "down_proj"]


def base(quantized):
    kind = {"quantization_config": QuantoConfig(weights="int8"), "device_map": {"": "cpu"}} if quantized else {}
    return LlamaForCausalLM.from_pretrained("base", dtype=torch.float32, **kind)


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def differ(one, other):
    return (one - other).abs().max().item()


def shown(name, config, quantized, **how):
    """Returns how far the trained adapter moved the logits, and how far the merged model is from it and from the base."""
    plain = logits(base(quantized))
    torch.manual_seed(1)
    model = get_peft_model(base(quantized), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(5):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained("adapter")
    trained = logits(model)
    loaded = PeftModel.from_pretrained(base(quantized), "adapter")
    assert differ(logits(loaded), trained) < 1e-5
    del said[:]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        merged = logits(loaded.merge_and_unload(**how))
    found = differ(trained, plain), differ(merged, trained), differ(merged, plain)
    heard = [str(one.message) for one in warned] + said
    print(f"{name}: logits moved by {found[0]:.2g}; merged is {found[1]:.2g} from them, {found[2]:.2g} from the base")
    print("    said:", heard)
    return *found, heard


print("peft", version("peft"), "optimum-quanto", version("optimum-quanto"))
moved, off, _, _ = shown("LoRA, float32", LoraConfig(target_modules=targets), False)
assert moved > 0.1 and off < 1e-5
for name, config, how in [
    ("LoRA, quanto int8", LoraConfig(target_modules=targets), {}),
    ("LoRA, quanto int8, safe_merge", LoraConfig(target_modules=targets), {"safe_merge": True}),
    ("LoHa, quanto int8", LoHaConfig(target_modules=targets), {}),
    ("LoKr, quanto int8", LoKrConfig(target_modules=targets), {}),
    ("IA3, quanto int8", IA3Config(target_modules=targets, feedforward_modules=["down_proj"]), {}),
]:
    moved, off, from_base, heard = shown(name, config, True, **how)
    assert moved > 0.01 and off == moved and from_base == 0, name
    assert not heard, name
kept = PeftModel.from_pretrained(base(True), "adapter")
kept.merge_adapter()
print("IA3, merge_adapter:", differ(logits(kept), logits(base(True))), "from the base")
assert differ(logits(kept), logits(base(True))) == 0
PY
HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore venv/bin/python shown.py
