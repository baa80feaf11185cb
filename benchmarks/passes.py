"""Time and memory of an update that is read in parts of `CPU_TOKENS` (`foci.training.passes`), beside one pass."""

import copy
import tempfile
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benchmarks.lean import MOST
from benchmarks.side_by_side import Allowance, Result, allocated_peak_mib
from benchmarks.sparse import Column
from benchmarks.training import MakeTrainer, Setting, smollm2, timed_steps
from foci import FocusTrainer, Plan
from foci.learn.fitting import CPU_TOKENS
from foci.training.passes import Passes

GOAL = 1.02
MEMORY_GOAL = 0.50


def run(allowed: Allowance) -> list[Result]:
    """The time of 8 rows of 256 tokens, which are three parts, and the memory of 16."""
    few = smollm2(8, 256)
    return [time(few, allowed.part(0.4)), memory(smollm2(16, 256))]


def maker(setting: Setting, updates: int, tokens: int | None) -> MakeTrainer:
    rows = setting.rows(updates, MOST, short=1 if updates > 1 else 0)

    def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        passes = Passes(lean=True, tokens=tokens)
        return FocusTrainer(model, arguments, plan=Plan([Column()]), train_dataset=rows, passes=passes)

    return make


def time(setting: Setting, allowed: Allowance) -> Result:
    """Raises AssertionError unless both log the same first loss to a hundredth."""
    most, warmup = 5, 1
    sides = {side: maker(setting, most + warmup, n) for side, n in (("foci", CPU_TOKENS), ("rival", None))}
    spent, losses = timed_steps(setting, sides, allowed.turns(most, warmup))
    firsts: list[Any] = [losses["foci"][0], losses["rival"][0]]
    assert abs(firsts[0] - firsts[1]) < 0.01 * firsts[1], firsts
    return Result.timed(
        f"parts of {CPU_TOKENS:,} tokens, time per update: {setting.name}", spent["foci"], spent["rival"],
        rival="one pass", goal=GOAL,
    )  # fmt: skip


def memory(setting: Setting) -> Result:
    """The most that tensors take during an update, beyond the model's weights."""

    def most(tokens: int | None) -> float:
        with tempfile.TemporaryDirectory() as folder:
            trainer = maker(setting, 1, tokens)(copy.deepcopy(setting.model), setting.arguments(folder))
            trainer.remove_callback(PrinterCallback)
            return allocated_peak_mib(trainer.train)

    return Result.of(
        f"parts of {CPU_TOKENS:,} tokens, most memory of tensors: {setting.name}", "MiB",
        [most(CPU_TOKENS)], [most(None)], rival="one pass", goal=MEMORY_GOAL,
    )  # fmt: skip
