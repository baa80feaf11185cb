"""Time per update of an adapter in lean passes (`foci.models.lean`), beside the passes of the model as it is."""

from typing import Any

from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from benchmarks.side_by_side import Allowance, Result
from benchmarks.sparse import Column
from benchmarks.training import Setting, smollm2, timed_steps
from foci import FocusTrainer, Plan
from foci.focus import Batch
from foci.training.passes import Passes

GOAL = 0.70
MOST = 0.98
"""The share of tokens with a weight: a column that is 1 on all of them is refused."""


class AsItIs(FocusTrainer):
    """The same trainer; the LM head's logits are computed again in the backward pass."""

    def _losses(self, model: nn.Module, batch: Batch, factors: Tensor, holds: list[Tensor]) -> tuple[Tensor, Tensor]:
        nll = self.token_nll(model, batch, factors > 0)
        return (nll * factors).sum(), nll


def run(allowed: Allowance) -> list[Result]:
    """Rows as long as the demo's; nearly all tokens have a weight, or one in twenty. `sft` has longer rows."""
    return [
        compare(smollm2(8, 136), MOST, allowed.part(0.55), GOAL),
        compare(smollm2(8, 136), 0.05, allowed.part(0.45), 0.60),
    ]


def compare(setting: Setting, share: float, allowed: Allowance, goal: float) -> Result:
    """Raises AssertionError unless both log the same first loss to a hundredth."""
    most, warmup = 6, 1
    rows = setting.rows(most + warmup, share)

    def lean(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        return FocusTrainer(model, arguments, plan=Plan([Column()]), train_dataset=rows, passes=Passes(lean=True))

    def as_it_is(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        return AsItIs(model, arguments, plan=Plan([Column()]), train_dataset=rows)

    spent, losses = timed_steps(setting, {"foci": lean, "rival": as_it_is}, allowed.turns(most, warmup))
    firsts: list[Any] = [losses["foci"][0], losses["rival"][0]]
    assert abs(firsts[0] - firsts[1]) < 0.01 * firsts[1], firsts
    return Result.timed(
        f"lean passes, time per update: {setting.name}, {share:.0%} of the tokens have a weight",
        spent["foci"], spent["rival"], rival="the passes of the model as it is", goal=goal,
    )  # fmt: skip
