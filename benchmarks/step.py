"""The cost of a plan without methods: time per update of FocusTrainer and transformers.Trainer, on the same rows."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks.side_by_side import Allowance, Result
from benchmarks.training import MakeTrainer, Setting, smollm2, timed_steps, tiny
from foci import FocusTrainer, Plan
from foci.focus import Row
from foci.training.dataset import Collator

GOAL = 1.03


def run(allowed: Allowance) -> list[Result]:
    """SmolLM2 (the goal), and a tiny model on which the trainer's own work shows."""
    return [
        compare(smollm2(16, 64), 16, allowed.part(0.8), goal=GOAL),
        compare(tiny(16, 64), 40, allowed.part(0.1), per_turn=10),
    ]


def compare(setting: Setting, most: int, allowed: Allowance, per_turn: int = 1, goal: float | None = None) -> Result:
    """Raises AssertionError unless both trainers log the same losses, bit for bit."""
    warmup = 1
    rows = setting.rows((most + warmup) * per_turn)
    makers = {"foci": ours(rows), "rival": theirs(rows)}
    spent, losses = timed_steps(setting, makers, allowed.turns(most, warmup), per_turn)
    assert losses["foci"] == losses["rival"], "an empty plan must log the Trainer's own losses"
    return Result.timed(
        f"neutral plan, time per update: {setting.name}", spent["foci"], spent["rival"],
        rival="transformers.Trainer, same rows", goal=goal, note="the same losses, bit for bit",
    )  # fmt: skip


def ours(rows: Sequence[Row]) -> MakeTrainer:
    def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        return FocusTrainer(model, arguments, plan=Plan([]), train_dataset=rows)

    return make


def theirs(rows: Sequence[Row]) -> MakeTrainer:
    def collate(batch: list[Row]) -> dict[str, Any]:
        made = Collator(0)(batch)
        return {name: made[name] for name in ("input_ids", "attention_mask", "labels")}

    def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        return Trainer(model, arguments, train_dataset=list(rows), data_collator=collate)

    return make
