#!/usr/bin/env bash
# FRoD, PSOFT and AdaMSS make their basis anew when they load: beside the same base in bfloat16 the adapter is another one
#
# Packages: torch==2.13.0, transformers==5.24.0, accelerate==1.15.0, peft==0.21.2, scikit-learn==1.9.1
# Guess:    An adapter is its file. Loaded beside the same base in bfloat16, or beside weights that differ in the last bit of
#           float32, it answers nearly as in training, as LoRA does. FRoD moreover writes its projection into the file, and its
#           page says that this makes a reload independent of computing it again (save_projection=True, the default).
# Seen:     (a small Llama that learns 16 rows; their loss is 8.77 before, then after training | beside the base in bfloat16)
#           LoRA .23 | .23, FRoD 1.86 | 4.66, PSOFT (r=32) .39 | 3.14, AdaMSS .93 | 3.71. Beside weights that differ by a
#           ten-millionth FRoD has 4.7. All three decompose the base's weights while they load, and which way a singular vector
#           points, or which cluster a row falls into, is up to rounding; what was trained is then laid upon other directions.
#           FRoD's file has V and not U: U is computed from a new V (update_layer in peft/tuners/frod/layer.py), and then the
#           V of the file takes that one's place. So the base's own weights are lost too: a FRoD that was never trained, saved and
#           loaded beside the last-bit base, takes the loss of text that the base knows by heart from .001 to 2.3. No warning.
# Matters:  Train beside a float32 checkpoint and serve it in bfloat16, or with FRoD on a machine that rounds otherwise, and
#           another adapter answers than the one that was measured. (A checkpoint that is bfloat16 itself has the same values
#           in both.) Measure the loss of the training rows after loading, or merge where the training was.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 peft==0.21.2 scikit-learn==1.9.1
cat > shown.py <<'PY'
import warnings

import peft
import torch
from peft import AdamssConfig, FrodConfig, LoraConfig, PeftModel, PsoftConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
known = torch.randint(3, 64, (16, 12), generator=torch.Generator().manual_seed(7))
new = torch.randint(3, 64, (16, 12), generator=torch.Generator().manual_seed(8))


def train(model, rows, rate, steps):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    for step in range(steps):
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def small():
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape))


weights = {name: value.clone() for name, value in train(small(), known, 3e-3, 300).state_dict().items()}


def base(dtype=torch.float32, noise=None):
    """The same base each time; with a noise, each weight is moved by a ten-millionth of itself (float32 has seven digits)."""
    model = small()
    model.load_state_dict(weights)
    if noise is not None:
        torch.manual_seed(noise)
        for weight in model.parameters():
            weight.data.mul_(1 + 1e-7 * torch.randn(weight.shape))
    return model.to(dtype).eval()


def loss(model, rows=new):
    with torch.no_grad():
        return model.eval()(input_ids=rows, labels=rows).loss.item()


where = {"target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
kinds = {
    "LoRA": LoraConfig(r=4, **where),
    "FRoD": FrodConfig(progressbar=False, **where),
    "PSOFT": PsoftConfig(r=32, **where),
    "AdaMSS": AdamssConfig(**where),
}
print("peft", peft.__version__)
print(f"base: {loss(base()):.3f}, in bfloat16 {loss(base(torch.bfloat16)):.3f}")
seen = {}
for kind, config in kinds.items():
    torch.manual_seed(1)
    model = train(get_peft_model(base(), config), new, 1e-2, 100)
    model.save_pretrained(kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = {
            "float32": loss(PeftModel.from_pretrained(base(), kind)),
            "bfloat16": loss(PeftModel.from_pretrained(base(torch.bfloat16), kind)),
            "last bit": max(loss(PeftModel.from_pretrained(base(noise=seed), kind)) for seed in range(3)),
        }
    said = sorted({str(warning.message)[:70] for warning in caught if warning.category is not FutureWarning})
    print(f"{kind}: trained {loss(model):.3f}; loaded", {name: round(value, 3) for name, value in loaded.items()}, said)
    seen[kind] = (loss(model), loaded)
    assert abs(loaded["float32"] - loss(model)) < 1e-3 and not said
own, loaded = seen.pop("LoRA")
assert abs(loaded["bfloat16"] - own) < 0.05 and abs(loaded["last bit"] - own) < 0.01
for kind, (own, loaded) in seen.items():
    assert loaded["bfloat16"] > own + 1, kind
own, loaded = seen["FRoD"]
assert loaded["last bit"] > own + 1
untrained = get_peft_model(base(), kinds["FRoD"])
untrained.save_pretrained("untrained")
by_heart = [loss(m, known) for m in (base(), untrained, PeftModel.from_pretrained(base(noise=0), "untrained"))]
print("text that the base knows: base, untrained FRoD, loaded beside the last-bit base", [round(x, 4) for x in by_heart])
assert max(by_heart[:2]) < 0.01 and by_heart[2] > 1
# what is in FRoD's file: the projection is, the factor that was made from it is not
from safetensors.torch import load_file

names = load_file("FRoD/adapter_model.safetensors")
print("in FRoD's file:", sorted({part for name in names for part in name.split(".") if part.startswith("frod_")}))
assert any("frod_V" in name for name in names) and not any("frod_U" in name for name in names)
PY
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python shown.py
