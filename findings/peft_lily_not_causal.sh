#!/usr/bin/env bash
# A causal model with PEFT's Lily adapter is not causal, and answers otherwise with a cache than without one
#
# Packages: peft==0.21.2, torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    An adapter upon linear layers works token by token, as LoRA does: no logit depends on later tokens, on the other
#           rows of the batch, or on whether a cache is used.
# Seen:     Lily's router weighs the shared B matrices by a mean over all tokens of the call, later ones, those of other rows
#           and padding among them. Another last token moves the logits before it by 5% of what the adapter changes at all,
#           the rows beside it by 5%, padding that the mask hides by 6%. Token by token with a cache the mean is over the one
#           new token: the logits differ by 26%. LoRA: 4e-7 at most. No warning in any case.
# Matters:  The loss is computed with knowledge of what follows, it changes with the batch size and the padding, and
#           generation with a cache, the default, does not come from the model whose loss was measured.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet peft==0.21.2 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > shown.py <<'PY'
from importlib.metadata import version

import torch
from peft import LilyConfig, LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def shares(config, steps=40):
    """How far logits move by what should not matter, as shares of how far the adapter moved them."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    net = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).eval()
    rows = (torch.randint(0, 64, (16, 1)) + 3 * torch.arange(12)) % 64
    base = net(rows[:1]).logits.detach()
    model = get_peft_model(net, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(rows, labels=rows).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        row, other = rows[:1], rows[:1].clone()
        other[:, -1] = (other[:, -1] + 7) % 64
        alone = model(row).logits
        later = model(other).logits[:, :-1] - alone[:, :-1]
        beside = model(rows).logits[:1] - alone
        wide = torch.cat([row, torch.zeros(1, 12, dtype=torch.long)], dim=1)
        mask = (torch.arange(24) < 12).long()[None]
        padded = model(input_ids=wide, attention_mask=mask).logits[:, :12] - alone
        cache, parts = None, []
        for place in range(row.shape[1]):
            out = model(input_ids=row[:, place : place + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            parts.append(out.logits)
        cached = torch.cat(parts, dim=1) - alone
    moved = (alone - base).abs().max()
    changes = {"later": later, "beside": beside, "padded": padded, "cached": cached}
    return {name: (change.abs().max() / moved).item() for name, change in changes.items()}


parts = ["q_proj", "v_proj"]
lily = shares(LilyConfig(task_type="CAUSAL_LM", r=16, stride_A=1, num_B=2, target_modules=parts))
lora = shares(LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=parts))
for name, found in (("Lily", lily), ("LoRA", lora)):
    print("peft", version("peft"), name, {n: f"{v:.1e}" for n, v in found.items()})
assert max(lora.values()) < 1e-5
assert lily["later"] > 1e-3
assert lily["beside"] > 1e-3
assert lily["padded"] > 1e-3
assert lily["cached"] > 0.03
PY
venv/bin/python shown.py
