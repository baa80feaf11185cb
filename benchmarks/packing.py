"""Time per update of rows that stand behind one another in long rows (`foci.models.long_rows`), beside rows apart."""

from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks.side_by_side import Allowance, Result
from benchmarks.training import MakeTrainer, Setting, smollm2, timed_steps, tiny
from foci import FocusTrainer, Plan
from foci.focus import Row
from foci.learn.fitting import CPU_TOKENS
from foci.training.passes import Passes

GOAL = 0.75
SHORTEST, LONGEST = 20, 512
TOLERANCE = 1e-2
"""Relative, of the first logged loss: SmolLM2 computes in bfloat16."""

PADDED = Passes(lean=True)
PARTS = Passes(lean=True, tokens=CPU_TOKENS)
PACKED = Passes(lean=True, tokens=CPU_TOKENS, packs=LONGEST)


def run(allowed: Allowance) -> list[Result]:
    """Packed rows beside one padded batch, and beside what `foci learn` does without packing: parts of like length."""
    small = tiny(16, LONGEST)
    return [
        compare(small, PADDED, "one padded batch", allowed.part(0.25), 8, GOAL),
        compare(small, PARTS, "parts of rows of like length", allowed.part(0.25), 8),
        compare(smollm2(6, LONGEST), PARTS, "parts of rows of like length", allowed.part(0.5), 3),
    ]


def rows_of(setting: Setting, updates: int) -> list[Row]:
    """Random rows of `SHORTEST` to `LONGEST` tokens, each length as likely; those of the first update are short."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for n in range(updates * setting.batch):
        most = 2 * SHORTEST if n < setting.batch else LONGEST
        length = int(torch.randint(SHORTEST, most + 1, (1,), generator=generator))
        made.append(
            Row(f"row-{n}", tuple(torch.randint(2, setting.vocabulary, (length,), generator=generator).tolist()))
        )
    return made


def compare(
    setting: Setting, other: Passes, rival: str, allowed: Allowance, most: int, goal: float | None = None
) -> Result:
    """Both sides read the same rows. Raises AssertionError unless they log the same first loss to `TOLERANCE`."""
    warmup = 1
    rows = rows_of(setting, most + warmup)
    positions: dict[str, list[int]] = {"foci": [], "rival": []}

    def maker(side: str, passes: Passes) -> MakeTrainer:
        class Counting(FocusTrainer):
            def log(self, *given: Any, **named: Any) -> None:
                positions[side].append(self.update.positions)
                super().log(*given, **named)

        def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
            return Counting(model, arguments, plan=Plan(), train_dataset=rows, passes=passes)

        return make

    sides = {"foci": maker("foci", PACKED), "rival": maker("rival", other)}
    spent, losses = timed_steps(setting, sides, allowed.turns(most, warmup))
    firsts: list[Any] = [losses["foci"][0], losses["rival"][0]]
    assert abs(firsts[0] - firsts[1]) < TOLERANCE * firsts[1], firsts
    count = min(len(losses[side]) for side in sides)
    ours, theirs = (sum(positions[side][1:count]) for side in ("foci", "rival"))
    return Result.timed(
        f"packed rows of {SHORTEST} to {LONGEST} tokens, time per update: {setting.name.rpartition(',')[0]}",
        spent["foci"], spent["rival"], rival=rival, goal=goal,
        note=f"{ours / theirs:.2f} of the positions" if theirs else "",
    )  # fmt: skip
