#!/usr/bin/env bash
# LayerNorm tuning that is saved while merged writes the base model's norms: the trained ones are not in the file
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2
# Guess:    save_pretrained writes what was trained, whether the adapter is merged at that moment or not, as it does for LoRA.
# Seen:     LNTuningConfig trains the norms of a small Llama. merge_adapter() leaves the logits as they are. Saved then, the
#           adapter loads without a word and gives exactly the logits of the base model; saved before the merge, or after
#           unmerge_adapter(), it gives the trained ones. LoRA, IA3, OFT and LoRA with modules_to_save give the trained
#           logits in all three cases. (Merging swaps the trained norm with the base's, and the file takes what lies there.)
# Matters:  A training loop that merges for a fast evaluation and saves the best checkpoint there keeps nothing. The loss
#           that it measured a moment before was right. Unmerge before saving, and ask the loaded adapter once.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
cat > shown.py <<'PY'
from importlib.metadata import version

import torch
import transformers
from peft import IA3Config, LNTuningConfig, LoraConfig, OFTConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

transformers.logging.disable_progress_bar()
torch.manual_seed(0)
shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
LlamaForCausalLM(LlamaConfig(vocab_size=96, initializer_range=0.05, **shape)).save_pretrained("base")
ids = torch.randint(0, 96, (4, 12))


def base():
    return LlamaForCausalLM.from_pretrained("base")


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def differ(one, other):
    return (one - other).abs().max().item()


def shown(name, config):
    """Returns how far an adapter that was saved while merged is from the trained one, and from the base."""
    torch.manual_seed(1)
    model = get_peft_model(base(), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-2)
    for _ in range(5):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    trained = logits(model)
    model.save_pretrained("before")
    model.merge_adapter()
    assert differ(logits(model), trained) < 1e-4, "merged, it answers as before"
    model.save_pretrained("merged")
    model.unmerge_adapter()
    model.save_pretrained("after")
    read = {when: logits(PeftModel.from_pretrained(base(), when)) for when in ("before", "merged", "after")}
    off = {when: differ(one, trained) for when, one in read.items()}
    from_base = differ(read["merged"], logits(base()))
    print(f"{name}: from the trained logits {off}; saved while merged, {from_base:.3g} from the base")
    assert off["before"] == off["after"] == 0
    return off["merged"], from_base


print("peft", version("peft"))
for name, config in [
    ("LoRA", LoraConfig(target_modules=["q_proj"])),
    ("LoRA, modules_to_save", LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    ("IA3", IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])),
    ("OFT", OFTConfig(oft_block_size=4, target_modules=["q_proj"])),
]:
    off, from_base = shown(name, config)
    assert off == 0 and from_base > 0.1, name
off, from_base = shown("LN tuning", LNTuningConfig(target_modules=["input_layernorm", "post_attention_layernorm"]))
assert off > 0.1 and from_base == 0
PY
HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore venv/bin/python shown.py
