#!/usr/bin/env bash
# Trainable tokens, other ones for embedding and head, train and load on a tied model; merging them breaks its answers
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2
# Guess:    LoraConfig(trainable_token_indices={"embed_tokens": [...], "lm_head": [...]}) with two different lists either is
#           refused where both share one matrix, or merge_and_unload() gives the logits of the adapter, as it does elsewhere.
# Seen:     It trains, is saved, and loads with the same logits. merge_and_unload() then returns a model whose logits are off
#           by more than the whole training had moved them, without an error and without a warning. The same lists upon
#           embeddings that are not tied merge to 1e-5, and so do a single list, or the same list twice, upon tied ones.
# Matters:  New or rare tokens of somebody's pages are what this setting is for, and small models tie their embeddings. The
#           adapter is right and the model that is handed on is not. Give one list on a tied model, and compare the answers
#           before and after merging.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
cat > shown.py <<'PY'
import logging
import warnings
from importlib.metadata import version

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

transformers.logging.disable_progress_bar()
said = []


class Heard(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


for name in (None, "transformers", "peft"):
    logging.getLogger(name).addHandler(Heard())
torch.manual_seed(0)
shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
for name, tied in (("apart", False), ("tied", True)):
    config = LlamaConfig(vocab_size=96, initializer_range=0.05, tie_word_embeddings=tied, **shape)
    LlamaForCausalLM(config).save_pretrained(name)
ids = torch.randint(0, 96, (4, 12))


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def differ(one, other):
    return (one - other).abs().max().item()


def shown(base, tokens):
    """Returns how far training moved the logits, and how far the merged model is from the adapter."""
    plain = logits(LlamaForCausalLM.from_pretrained(base))
    torch.manual_seed(1)
    config = LoraConfig(target_modules=["q_proj"], trainable_token_indices=tokens)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-2)
    for _ in range(5):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    trained = logits(model)
    model.save_pretrained("adapter")
    loaded = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), "adapter")
    assert differ(logits(loaded), trained) == 0
    del said[:]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        merged = logits(loaded.merge_and_unload())
    heard = [str(one.message) for one in warned] + said
    moved, off = differ(trained, plain), differ(merged, trained)
    print(f"{base}, {tokens}: training moved the logits by {moved:.2g}, merging by {off:.2g}; said: {heard}")
    return moved, off, heard


print("peft", version("peft"))
one, other = [1, 2, 3], [4, 5]
for base, tokens in [
    ("apart", {"embed_tokens": one, "lm_head": other}),
    ("tied", {"embed_tokens": one}),
    ("tied", {"embed_tokens": one, "lm_head": one}),
]:
    assert shown(base, tokens)[1] < 1e-4
moved, off, heard = shown("tied", {"embed_tokens": one, "lm_head": other})
assert off > 1 and not heard
PY
HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore venv/bin/python shown.py
