"""Learning without forgetting: tokens that matter little are held to what the untouched model says of them.

The loss that is added is strength * mean of T^2 KL(untouched model || learner) in nats, over the tokens that are held
(arXiv 1606.09282; holding only the tokens of little weight is ours). Combined with a weigher, the weigher says what is
to be learned, and all the rest stays as it was. At the first update this loss and its gradient are 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from foci.corpus import tokenizer_fingerprint
from foci.focus import REHEARSED, Batch, Context, Imitates, LiveTeacher, Prepares, Row
from foci.methods._pieces import Piece, Told, tell
from foci.methods._prepared import Prepared
from foci.methods._soft_targets import SoftTargetShards, Stored, ask_model
from foci.models import fingerprint
from foci.models.forward import pad_id


@dataclass(frozen=True)
class Lwf(Prepares):
    """Holds tokens to what the untouched model says of them, so that what is not to be learned is not lost.

    `on` says which: "rest" (tokens with less than `below` of the update's largest weight; it needs a method that
    weighs) or "all". `strength` is the factor of the loss at the first update, `end` at the last (None: the same), with
    a straight line in between. `teacher` is asked once before training ("columns", for rows that are read as they are)
    or in every update ("live", for rows that another method edits); "misled", a control, is asked before training too,
    but reads another row before each. `k` of its likeliest tokens are kept.
    """

    strength: float = 1.0
    on: Literal["rest", "all"] = "rest"
    below: float = 0.25
    end: float | None = None
    teacher: Literal["columns", "live", "misled"] = "columns"
    k: int = 20
    temperature: float = 1.0

    def __post_init__(self) -> None:
        strengths = (self.strength, *(() if self.end is None else (self.end,)))
        if not all(0 <= one < float("inf") for one in strengths) or not any(strengths):
            raise ValueError(
                f"lwf's strength and end are finite, at least 0 and not both 0, got {self.strength!r} and {self.end!r}"
            )
        if not 0 < self.below <= 1:
            raise ValueError(f"lwf's below is a share of the largest weight, above 0 and at most 1, got {self.below!r}")
        if self.k < 1 or not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"lwf expected k >= 1 tokens and a finite temperature above 0, got k {self.k} and temperature "
                f"{self.temperature!r}"
            )

    def needs_weigher(self) -> bool:
        """Says whether nothing is held without a method that weighs tokens."""
        return self.on == "rest"

    def prepare(self, context: Context) -> tuple["LwfHold", Sequence[Row]]:
        """Asks the untouched model about every token of the rows, or, with a live teacher, nothing yet."""
        if self.teacher == "live":
            return LwfHold(self, None), context.rows
        if self.teacher == "misled":
            return LwfHold(self, self._misled(context)), context.rows
        return LwfHold(self, self._shards(context).stored()), context.rows

    def fill(self, context: Context, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """Asks for part `number` of `count` of the rows; yields tokens and seconds of each shard."""
        if self.teacher == "columns":
            yield from self._shards(context).fill(number, count)

    def _misled(self, context: Context) -> Told:
        """Asks the untouched model about every row behind the row after it."""
        if len(context.rows) < 2:
            raise ValueError(f"lwf's misled teacher reads another row before each, got {len(context.rows)} row")
        pieces = [
            Piece(row, Row(f"{other.row_id}+{row.row_id}", (*other.input_ids, *row.input_ids)), len(other), 0)
            for row, other in zip(context.rows, [*context.rows[1:], context.rows[0]], strict=True)
        ]
        return tell(context, pieces, LiveTeacher(self.k, self.temperature), "lwf")

    def _shards(self, context: Context) -> SoftTargetShards:
        teacher = LiveTeacher(self.k, self.temperature)
        return SoftTargetShards(
            context.folder,
            {"model": fingerprint(context.model), "tokenizer": tokenizer_fingerprint(context.tokenizer)},
            context.rows,
            teacher,
            lambda rows: ask_model(context.model, pad_id(context.tokenizer), rows, teacher),
        )


@dataclass(frozen=True, repr=False)
class LwfHold(Prepared, Imitates):
    """Holds the tokens that the settings name."""

    settings: Lwf
    stored: Stored | Told | None = field(repr=False)

    def teacher(self) -> LiveTeacher | Stored | Told:
        """Returns the untouched model, or what it said before training."""
        return self.stored or LiveTeacher(self.settings.k, self.settings.temperature)

    def hold(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns 1 on the tokens that are held, else 0. Rehearsed rows are left to the method that mixes them in."""
        ours = torch.ones_like(weights) if self.settings.on == "all" else (weights < self.settings.below).float()
        return ours * (batch.columns[REHEARSED] == 0) if REHEARSED in batch.columns else ours

    def needs_weigher(self) -> bool:
        """Says whether nothing is held without a method that weighs tokens."""
        return self.settings.needs_weigher()

    def strength(self, step: int, steps: int) -> float:
        """Returns the strength at update `step` (from 0) of `steps`."""
        first, last = self.settings.strength, self.settings.end
        return first if last is None else first + (last - first) * step / max(1, steps - 1)
