"""Time and memory saved by keeping tokens of weight 0 from the LM head, where 95 % of all weights are 0."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from benchmarks.side_by_side import Allowance, Result
from benchmarks.training import MakeTrainer, Setting, smollm2, timed_steps
from foci import FocusTrainer, Plan
from foci.focus import Batch, WeighsTokens
from foci.models.losses import weighted_mean

GOAL = 0.85
SHARE = 0.05
"""Of tokens with a weight."""
TOLERANCE = 2e-3
"""Relative, of logged losses: both compute in bfloat16, in another order of sums."""


@dataclass(frozen=True)
class Column(WeighsTokens):
    """Weights from the column `w`."""

    def needs(self) -> frozenset[str]:
        return frozenset({"w"})

    def weigh(self, batch: Batch) -> Tensor:
        return batch.columns["w"]


class FullLogitsTrainer(FocusTrainer):
    """The same loss from all of the model's logits, in float32, as Transformers' own loss has them."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        assert isinstance(num_items_in_batch, Tensor)
        with self.accelerator.autocast():
            logits = model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).logits.float()
        labels = F.pad(inputs["labels"][:, 1:], (0, 1), value=-100)
        late = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
        loss = weighted_mean(F.pad(late[:, :-1], (1, 0)), inputs["weights"], num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss


def run(allowed: Allowance) -> list[Result]:
    """Many short rows (as in the demo) and few long ones."""
    return [
        compare(smollm2(16, 64), 10, allowed.part(0.4)),
        compare(smollm2(4, 512), 6, allowed.part(0.6)),
    ]


def compare(setting: Setting, most: int, allowed: Allowance) -> Result:
    """Raises AssertionError unless both trainers log the same losses to `TOLERANCE`."""
    warmup = 1
    rows = setting.rows(most + warmup, SHARE)

    def maker(kind: type[FocusTrainer]) -> MakeTrainer:
        def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
            return kind(model, arguments, plan=Plan([Column()]), train_dataset=rows)

        return make

    spent, losses = timed_steps(
        setting, {"foci": maker(FocusTrainer), "rival": maker(FullLogitsTrainer)}, allowed.turns(most, warmup)
    )
    ours, theirs = torch.tensor(losses["foci"]), torch.tensor(losses["rival"])
    torch.testing.assert_close(ours[0], theirs[0], rtol=TOLERANCE, atol=0)  # later ones drift apart in bfloat16
    worst = float(((ours - theirs) / theirs).abs().max())
    return Result.timed(
        f"weights 95 % zero, time per update: {setting.name}", spent["foci"], spent["rival"],
        rival="the same trainer computing all logits", goal=GOAL, note=f"losses within {worst:.1e}, relative",
    )  # fmt: skip
