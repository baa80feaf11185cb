"""The cost of a checkpoint of all weights: foci's, which is flushed and hashed, and transformers.Trainer's own."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from benchmarks.side_by_side import Allowance, Result, in_turns
from foci import FocusTrainer, Plan
from foci.focus import Row

GOAL = 1.3


def run(allowed: Allowance) -> list[Result]:
    """13.5 M parameters, with the two averages of AdamW."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sides = {"foci": saving(FocusTrainer, folder / "foci"), "rival": saving(Trainer, folder / "rival")}
        spent = in_turns(sides, 15, allowed)
    result = Result.timed(
        "a checkpoint of 13.5 M parameters", spent["foci"], spent["rival"],
        rival="transformers.Trainer, neither flushed nor hashed", goal=GOAL, note="flushed, hashed, all or nothing",
    )  # fmt: skip
    return [result]


def saving(kind: type[Trainer], folder: Path) -> Callable[[], None]:
    """Returns what writes one checkpoint and deletes it again, after one update."""
    config = LlamaConfig(
        vocab_size=8000, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    arguments = TrainingArguments(
        str(folder), max_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True
    )
    if issubclass(kind, FocusTrainer):
        rows = [Row("a", (1, 2, 3, 4))]
        trainer: Trainer = kind(LlamaForCausalLM(config), arguments, plan=Plan(), train_dataset=rows)
    else:
        rows_of_theirs = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}]
        trainer = kind(LlamaForCausalLM(config), arguments, train_dataset=rows_of_theirs)
    trainer.train()

    def save() -> None:
        trainer._save_checkpoint(trainer.model, None)
        for path in folder.iterdir():
            shutil.rmtree(path)

    return save
