#!/usr/bin/env bash
# PeftModel.from_pretrained drops adapter weights that fit nowhere, without a word
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2
# Guess:    An adapter of a 4-layer model, put on a 2-layer model, is refused, or PEFT warns: it does so for missing keys.
# Seen:     The adapters of two layers are placed, those of the other two are dropped. No warning, no log line. Only
#           `load_adapter` returns the names (8 unexpected keys).
# Matters:  A LoRA on the wrong base of the same width runs, answers, and is half an adapter.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
venv/bin/python - <<'PY'
import logging
import tempfile
import warnings

import torch
from peft import LoraConfig, PeftModel, __version__, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def llama(layers):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=4,
        )
    )


said = []


class Heard(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


logging.getLogger().addHandler(Heard())
with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    get_peft_model(
        llama(4), LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    ).save_pretrained(folder)
    del warned[:], said[:]
    half = PeftModel.from_pretrained(llama(2), folder)
    heard = [str(one.message) for one in warned if "missing" in str(one.message) or "unexpected" in str(one.message)]
    told = half.load_adapter(folder, adapter_name="again")
placed = sum("lora_A.default" in name for name, _ in half.named_parameters())
print("peft", __version__, "| adapters of 4 layers, placed:", placed, "of 8 | warned:", heard + said)
print("load_adapter returns", len(told.unexpected_keys), "unexpected keys")
assert placed == 4
assert not heard and not said
assert len(told.unexpected_keys) == 8
PY
