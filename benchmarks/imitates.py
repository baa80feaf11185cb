"""Cost of holding tokens to the untouched model (`lwf`), beside the same arm without it.

Every token has a weight, as under a weigher, so that both read all positions with the LM head.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks.side_by_side import Allowance, Result
from benchmarks.sparse import Column
from benchmarks.training import MakeTrainer, Setting, smollm2, timed_steps
from foci import FocusTrainer, Plan
from foci.focus import LiveTeacher, Method
from foci.methods._soft_targets import SoftTargetShards, ask_model
from foci.methods.lwf import Lwf, LwfHold

GOALS: dict[Literal["columns", "live"], float] = {"columns": 1.15, "live": 1.45}
STRENGTH = 1.0
LEARNED = 0.03
"""Share of the tokens that are learned; all others are held."""


def run(allowed: Allowance) -> list[Result]:
    """Columns and a live teacher, with rows as long as the demo's."""
    setting = smollm2(8, 136)
    return [compare(setting, teacher, 3, allowed.part(0.5)) for teacher in GOALS]


def compare(setting: Setting, teacher: Literal["columns", "live"], most: int, allowed: Allowance) -> Result:
    """Times one kind of teacher."""
    warmup = 1
    rows = [
        replace(row, columns={"w": tuple(one or 0.01 for one in row.columns["w"])})
        for row in setting.rows(most + warmup, LEARNED)
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = Lwf(strength=STRENGTH, teacher=teacher)
        hold = LwfHold(settings, _stored(setting.model, rows, Path(folder)) if teacher == "columns" else None)

        def maker(methods: list[Method]) -> MakeTrainer:
            def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
                return FocusTrainer(model, arguments, plan=Plan(methods), train_dataset=rows)

            return make

        sides = {"foci": maker([Column(), hold]), "rival": maker([Column()])}
        spent, _ = timed_steps(setting, sides, allowed.turns(most, warmup))
    return Result.timed(
        f"lwf, {teacher}, time per update: {setting.name}", spent["foci"], spent["rival"],
        rival="the same arm without lwf", goal=GOALS[teacher], note=f"{1 - LEARNED:.0%} of the tokens held",
    )  # fmt: skip


def _stored(model: nn.Module, rows: list[Any], folder: Path) -> Any:
    assert isinstance(model, PeftModel)
    teacher = LiveTeacher()
    with model.disable_adapter(), torch.no_grad():
        shards = SoftTargetShards(
            folder, {}, rows, teacher, lambda some: ask_model(model.get_base_model(), 0, some, teacher)
        )
        return shards.stored()
