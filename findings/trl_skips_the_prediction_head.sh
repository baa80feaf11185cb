#!/usr/bin/env bash
# SFTTrainer skips the prediction head of a ModernBERT decoder (Ettin): its loss falls, and the model's own loss rises
#
# Packages: trl==1.16.0, torch==2.13.0, transformers==5.24.0, accelerate==1.15.0, datasets==5.2.0
# Guess:    The loss that SFTTrainer minimises and logs is the model's own loss, which model(input_ids, labels=...) gives and
#           which generate comes from. Where TRL cannot compute it for a kind of model, it says so.
# Seen:     In ModernBertDecoderForCausalLM a dense layer, an activation and a norm stand between the backbone and the output
#           matrix. TRL's fused LM head multiplies the backbone's output by get_output_embeddings() and leaves them out. A tiny
#           model that knows the text (own held-out loss .90) is told eval_loss 6.0 before the first update. After 60 updates
#           eval_loss is .89, as good as at first, and the model's own loss has risen to 3.7. The head's two weights have not
#           moved at all. No warning. For a Llama both losses are the same to .001. BERT and RoBERTa as decoders have such a
#           head too. DPO, KTO and GRPO take the same fused head (add_fused_lm_head in trl/trainer/utils.py).
# Matters:  The curve is that of a good run, and the model that is saved, loaded and asked has unlearned its language. Compare
#           model(input_ids, labels=...).loss with eval_loss once, before training; transformers' own Trainer is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet trl==1.16.0 torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 datasets==5.2.0
cat > shown.py <<'PY'
import random

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig, LlamaForCausalLM, ModernBertDecoderConfig, ModernBertDecoderForCausalLM, PreTrainedTokenizerFast,
)
from trl import SFTConfig, SFTTrainer

words = [f"w{i}" for i in range(100)]
kinds = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*words, "<pad>", "<eos>"])}, unk_token="<pad>"))
kinds.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=kinds, pad_token="<pad>", eos_token="<eos>")
draw = random.Random(0)
follow = {w: draw.sample(words, 2) for w in words}


def text():
    """A row in which each word is followed by one of two words, at 7 to 3."""
    row = [draw.choice(words)]
    while len(row) < 16:
        row.append(follow[row[-1]][draw.random() < 0.3])
    return {"text": " ".join(row) + " <eos>"}


learned, held_out = (Dataset.from_list([text() for _ in range(n)]) for n in (512, 64))
ids, test = (tokenizer(list(rows["text"]), return_tensors="pt").input_ids for rows in (learned, held_out))


def own_loss(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=test, labels=test).loss.item()


def pretrained(model):
    """A model that has learned the text by its own loss, as a base model has."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(80):
        rows = ids[torch.randint(0, len(ids), (32,))]
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


shape = {"vocab_size": 102, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "pad_token_id": 100, "bos_token_id": 101, "eos_token_id": 101}
more = {"cls_token_id": 101, "sep_token_id": 101}


def run(name, model):
    model = pretrained(model)
    before = own_loss(model)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=name, max_steps=60, eval_on_start=True, eval_strategy="steps", eval_steps=60, save_strategy="no",
            learning_rate=3e-3, lr_scheduler_type="constant", per_device_train_batch_size=32,
            per_device_eval_batch_size=64, report_to="none", use_cpu=True, bf16=False,
            gradient_checkpointing=False, disable_tqdm=True, logging_strategy="no",
        ),
        train_dataset=learned, eval_dataset=held_out, processing_class=tokenizer,
    )
    head = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer.train()
    said = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    own = [before, own_loss(trainer.model)]
    still = [n for n, p in trainer.model.named_parameters() if torch.equal(p, head[n])]
    print(name, "eval_loss", [round(x, 3) for x in said], "own loss", [round(x, 3) for x in own], "not moved", still)
    return said, own, still


print("trl", trl.__version__)
torch.manual_seed(0)
said, own, still = run("Llama", LlamaForCausalLM(LlamaConfig(**shape)))
assert max(abs(a - b) for a, b in zip(said, own)) < 1e-3 and not still
said, own, still = run("ModernBertDecoder", ModernBertDecoderForCausalLM(ModernBertDecoderConfig(**shape, **more)))
assert said[0] > 4 and said[1] < 1.2  # as if the model had known nothing, and then learned
assert own[0] < 1.2 and own[1] > 2  # it knew the text, and has lost it
assert still == ["lm_head.dense.weight", "lm_head.norm.weight"]
PY
HF_HUB_OFFLINE=1 venv/bin/python shown.py
