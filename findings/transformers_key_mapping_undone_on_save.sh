#!/usr/bin/env bash
# A text model that was loaded by key_mapping is saved under the names that its own class cannot load
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0, peft==0.21.2
# Guess:    `LlamaForCausalLM.from_pretrained(llava, key_mapping=...)` gives a Llama; what it saves is a Llama checkpoint.
# Seen:     The loaded model is right (same logits). `save_pretrained` puts the old names back (language_model.model...), but
#           writes the config of the text model. Loaded again by the same class all 21 weights are missing and random.
# Matters:  Whoever trains the language part of a multimodal model and saves it has saved nothing that loads.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
venv/bin/python - <<'PY'
import tempfile
import warnings

import torch
import transformers
from safetensors import safe_open
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
text = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
    tie_word_embeddings=False,
)
vision = CLIPVisionConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, image_size=8, patch_size=4, projection_dim=32
)
torch.manual_seed(0)
whole = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=63)).eval()
ids = torch.arange(2, 20)[None]
with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second, torch.no_grad():
    whole.save_pretrained(first)
    part, info = LlamaForCausalLM.from_pretrained(
        first, config=text, output_loading_info=True,
        key_mapping={r"^language_model\.model\.": "model.", r"^language_model\.lm_head": "lm_head"},
    )
    same = torch.equal(part(ids).logits, whole(input_ids=ids).logits)
    print("transformers", transformers.__version__, "| loaded, missing:", len(info["missing_keys"]), "| same logits:", same)
    assert same and not info["missing_keys"]
    part.save_pretrained(second)
    with safe_open(second + "/model.safetensors", "pt") as file:
        names = sorted(file.keys())
    again, info = LlamaForCausalLM.from_pretrained(second, output_loading_info=True)
    same = torch.equal(part(ids).logits, again(ids).logits)
    print("saved:", names[0], "| loaded again, missing:", len(info["missing_keys"]), "| same logits:", same)
    assert names[0] == "language_model.lm_head.weight"
    assert not same and len(info["missing_keys"]) == 21
PY
