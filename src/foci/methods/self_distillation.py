"""The learner is held to a model that was adapted to the corpus before: self-distillation for further pretraining.

The teacher is the same model after a first training on the corpus, the learner begins from the untouched one again
(arXiv 2209.15189): loss = nll + strength * T^2 KL(teacher || learner), over all tokens of the new text, in nats. Train
the teacher with a run of its own, and name its `model` folder here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from foci.corpus import tokenizer_fingerprint
from foci.focus import REHEARSED, Batch, Context, Imitates, LiveTeacher, Prepares, Row
from foci.methods._prepared import Prepared, named_model
from foci.methods._soft_targets import SoftTargetShards, Stored, ask_model
from foci.models import fingerprint
from foci.models.forward import pad_id


@dataclass(frozen=True)
class SelfDistillation(Prepares):
    """Holds all tokens to what a model says that was adapted to the corpus before, beside the text itself.

    `teacher` names that model as `model.name` does, such as the folder `model` of a run. `strength` is the factor of
    the divergence at temperature `temperature`; `k` of the teacher's likeliest tokens are kept.
    """

    teacher: str
    strength: float = 1.0
    temperature: float = 1.0
    k: int = 20

    def __post_init__(self) -> None:
        numbers = (self.strength, self.temperature)
        if not all(0 < one < float("inf") for one in numbers) or self.k < 1:
            raise ValueError(
                f"self_distillation expected a finite strength and temperature above 0 and k >= 1 tokens, got "
                f"{self.strength!r}, {self.temperature!r} and {self.k}"
            )

    def prepare(self, context: Context) -> tuple["SelfDistillationHold", Sequence[Row]]:
        """Asks the teacher about every token of the rows.

        Raises ValueError where it has another tokenizer, or is the untouched model itself.
        """
        model = named_model(self.teacher, context, "self_distillation's teacher")
        if fingerprint(model) == fingerprint(context.model):
            raise ValueError(
                f"self_distillation's teacher {self.teacher!r} is the untouched model itself; name a model that was "
                "trained on the corpus, or use lwf with on: all"
            )
        teacher = LiveTeacher(self.k, self.temperature)
        shards = SoftTargetShards(
            context.folder,
            {"model": fingerprint(model), "tokenizer": tokenizer_fingerprint(context.tokenizer)},
            context.rows,
            teacher,
            lambda rows: ask_model(model, pad_id(context.tokenizer), rows, teacher),
            "self_distillation",
        )
        return SelfDistillationHold(self, shards.stored()), context.rows


@dataclass(frozen=True, repr=False)
class SelfDistillationHold(Prepared, Imitates):
    """Holds all tokens of the new rows to what the teacher said."""

    settings: SelfDistillation
    stored: Stored = field(repr=False)

    def teacher(self) -> Stored:
        """Returns what the teacher said before training."""
        return self.stored

    def hold(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns 1 on every token of the new rows."""
        ours = torch.ones_like(weights)
        return ours * (batch.columns[REHEARSED] == 0) if REHEARSED in batch.columns else ours

    def strength(self, step: int, steps: int) -> float:
        """Returns the same factor in every update."""
        return self.settings.strength
