#!/usr/bin/env bash
# With transformers 5.24, PEFT's prefix tuning generates as the base does, and prompt tuning repeats its prompt at every token
#
# Packages: peft==0.21.2, transformers==5.24.0 (and 5.23.0), torch==2.13.0, accelerate==1.15.0
# Guess:    generate() of a model with a trained prefix or prompt gives what its own forward gives, token by token, and PEFT,
#           which asks for any version of transformers, works with the newest or raises an error.
# Seen:     transformers 5.24 calls the cache "cache", and PEFT still puts its prefix into "past_key_values". Prefix tuning and
#           cartridges: forward knows 10 of 10 new tokens, generate writes 0 of them, and its logits are the base's to the
#           third digit. Prompt tuning and p-tuning find no cache and put the prompt before every new token again (8 prompt
#           tokens, 5 given, 10 written: the cache has 94 places, not 22); the logits are off by .7 of what the prompt changes.
#           With 5.23 all are as forward. A FutureWarning, said once, names past_key_values for the first two; none for the
#           others. LoRA is right in both. (prepare_inputs_for_generation in peft/peft_model.py)
# Matters:  Training and its losses are right, since they use forward alone; every answer that is scored comes from another
#           model, and prefix tuning looks as if it had learned nothing. Compare generate() with forward once.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 peft==0.21.2
cat > shown.py <<'PY'
import sys

import peft
import torch
import transformers
from peft import CartridgeConfig, LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
broken = sys.argv[1] == "broken"
# the base knows two ways on after 1 2 3: the first by itself, the second after 7 8; the adapter learns the second
one = torch.tensor([[0, 0, 1, 2, 3] + list(range(10, 20))])
switched = torch.tensor([[7, 8, 1, 2, 3] + list(range(30, 40))])
two = torch.tensor([[0, 0, 1, 2, 3] + list(range(30, 40))])


def train(model, rows, rate, steps):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    for step in range(steps):
        model(input_ids=rows, attention_mask=torch.ones_like(rows), labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
model = train(LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)), torch.cat([one, switched]), 3e-3, 150)
weights = {name: value.clone() for name, value in model.state_dict().items()}


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -11:-1]


prompts = {"num_virtual_tokens": 8, "task_type": "CAUSAL_LM"}
kinds = {
    "LoRA": LoraConfig(task_type="CAUSAL_LM"),
    "prefix tuning": PrefixTuningConfig(**prompts),
    "cartridge": CartridgeConfig(**prompts),
    "prompt tuning": PromptTuningConfig(**prompts),
    "p-tuning": PromptEncoderConfig(encoder_hidden_size=32, **prompts),
}
print("peft", peft.__version__, "transformers", transformers.__version__)
for kind, config in kinds.items():
    model.load_state_dict(weights)
    torch.manual_seed(1)
    adapted = train(get_peft_model(model, config), two, 3e-2, 300)
    known = (logits(adapted, two).argmax(-1) == two[:, 5:]).sum().item()
    given = two[:, :5]
    answer = adapted.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=10, do_sample=False, eos_token_id=None,
        pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )
    right = (answer.sequences[:, 5:] == two[:, 5:]).sum().item()
    own = logits(adapted, answer.sequences)
    with adapted.disable_adapter():
        base = logits(adapted, answer.sequences)
    made = torch.stack(answer.logits, 1)
    to_own, to_base = (((made - other).norm() / (own - base).norm()).item() for other in (own, base))
    places = answer.past_key_values.get_seq_length()
    print(f"{kind}: of 10 tokens forward knows {known}, generate writes {right}; logits off forward's by {to_own:.3f}", end=", ")
    print(f"off the base's by {to_base:.3f}; the cache ends with {places} places")
    if kind == "LoRA":
        model = adapted.unload()
    else:
        model = adapted.get_base_model()
    assert known == 10
    if kind == "LoRA" or not broken:
        assert right == 10 and to_own < 1e-3
    elif kind in ("prefix tuning", "cartridge"):
        assert right <= 1 and to_base < 1e-3
    else:
        assert to_own > 0.2 and places == 8 + 5 + 9 * (8 + 1)
PY
HF_HUB_OFFLINE=1 venv/bin/python shown.py broken
venv/bin/python -m pip install --quiet transformers==5.23.0
HF_HUB_OFFLINE=1 venv/bin/python shown.py right
