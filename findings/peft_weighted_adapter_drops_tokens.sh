#!/usr/bin/env bash
# add_weighted_adapter drops trained tokens and modules_to_save: the mixture has the base model's head and tokens
#
# Packages: torch==2.13.0, transformers==5.24.0, accelerate==1.15.0, peft==0.21.2
# Guess:    A new adapter made of one adapter with weight 1.0 answers as that adapter does, or PEFT raises an error where it
#           cannot combine what was trained. It does raise one for bias="lora_only", and for target_parameters.
# Seen:     (one adapter, weight 1.0, combination_type="svd"; off by what share of what the adapter changes in the logits)
#           Plain LoRA: 0. With trainable_token_indices: .84. With modules_to_save=["lm_head"]: .98. The matrices of LoRA are
#           combined, the trained rows and the trained head are not: the new adapter has those of the base. Two adapters with
#           modules_to_save are refused (ValueError), two with trainable tokens are not. No warning. (peft/tuners/lora/model.py)
# Matters:  New tokens, a head or norms that were trained beside LoRA often carry most of what was learned. The mixture loads,
#           answers, and lacks them; a low score is then blamed on the mixing. Try one adapter with weight 1.0 first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 peft==0.21.2
cat > shown.py <<'PY'
import warnings

import peft
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

ids = torch.arange(24).view(2, 12)


def logits(model, adapter):
    model.set_adapter(adapter)
    model.eval()
    with torch.no_grad():
        return model(ids).logits


def shares(seed=1, **special):
    """How far the new adapter is from the one that it is made of, by what that one changes at all."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "attention_bias": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).eval()
    with torch.no_grad():
        base = model(ids).logits
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], **special)
    model = get_peft_model(model, config, adapter_name="one")
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    torch.manual_seed(seed)
    model.train()
    for step in range(8):
        rows = torch.randint(0, 64, (4, 12))
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    one = logits(model, "one")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.add_weighted_adapter(["one"], [1.0], "new", combination_type="svd")
        new = logits(model, "new")
    said = [str(warning.message)[:60] for warning in caught]
    again = logits(model, "one")
    assert torch.equal(one, again)
    return ((new - one).norm() / (one - base).norm()).item(), said, model


print("peft", peft.__version__)
kinds = {
    "LoRA": {},
    "trainable tokens": {"trainable_token_indices": [1, 2, 3]},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
}
off = {}
for kind, special in kinds.items():
    off[kind], said, model = shares(**special)
    print(f"{kind}: off by {off[kind]:.3f} of what the adapter changes; warnings: {said}")
    assert not said
assert off["LoRA"] < 1e-3 and off["trainable tokens"] > 0.5 and off["modules_to_save"] > 0.8
for kind, refused in (("trainable tokens", False), ("modules_to_save", True)):
    model = shares(**kinds[kind])[2]
    model.add_adapter("two", model.peft_config["one"])
    try:
        model.add_weighted_adapter(["one", "two"], [0.5, 0.5], "both", combination_type="svd")
    except ValueError as error:
        print("two adapters,", kind, "refused:", str(error)[:70])
        assert refused
    else:
        print("two adapters,", kind, "not refused")
        assert not refused
for special in ({"bias": "lora_only"}, {"target_parameters": ["lm_head.weight"]}):
    try:
        shares(**special)
    except ValueError as error:
        print(special, "is refused:", str(error)[:70])
    else:
        raise AssertionError("was not refused")
PY
HF_HUB_OFFLINE=1 venv/bin/python shown.py
