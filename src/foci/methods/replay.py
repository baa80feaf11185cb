"""Rehearses old text, the same amount in every epoch.

The oldest answer to forgetting. With a file it is experience replay; without one the model's own samples stand in for
the text it learned from, as in arXiv 2605.26097 (self-generated replay). With `anchor: kl` a rehearsed row has no
labels: all its tokens are held to what the untouched model says of them. With labels only the expectation of the
gradient is 0 at the start, and a small pool is learned by heart; with the divergence it is 0 for each row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from foci.corpus import tokenizer_fingerprint
from foci.focus import UNWEIGHTED, Batch, Context, Imitates, LiveTeacher, MixesRows, Prepares, Row
from foci.methods._prepared import Prepared
from foci.methods._rehearsal import ENCYCLOPEDIA, Pool, pool_of, rehearsed
from foci.methods._soft_targets import SoftTargetShards, Stored, ask_model
from foci.models import fingerprint
from foci.models.forward import pad_id
from foci.rows import Rows, changed


@dataclass(frozen=True)
class Replay(Prepares):
    """Adds old text, or the model's own samples, to every epoch, always the same amount.

    An epoch has `ratio` old rows per new row. `path` names text files or folders as `corpus.path` does; "encyclopedia"
    makes `samples` texts about things that do not exist (with "kl" alone); None draws `samples` texts from the
    untouched model. `anchor` says what its tokens are held to: "labels", the text itself, or
    "kl", what the untouched model says (its `k` likeliest tokens), at `strength` times the divergence in nats.
    """

    grows: ClassVar[bool] = False

    ratio: float = 1.0
    path: str | tuple[str, ...] | None = None
    samples: int = 256
    anchor: Literal["labels", "kl"] = "labels"
    strength: float = 1.0
    k: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.ratio < float("inf") or self.samples < 1:
            raise ValueError(
                f"replay expected ratio > 0 old rows per new row and samples >= 1, got ratio {self.ratio} and "
                f"samples {self.samples}; 1.0 mixes half and half"
            )
        if self.path == ENCYCLOPEDIA and self.anchor != "kl":
            raise ValueError(
                f"replay's encyclopedia is about things that do not exist and must not be learned, got anchor "
                f"{self.anchor!r}; set anchor: kl"
            )
        if not 0 < self.strength < float("inf") or self.k < 1:
            raise ValueError(
                f"replay expected a finite strength above 0 and k >= 1 tokens, got {self.strength!r} and {self.k}"
            )

    def added(self, new: int) -> int:
        """Returns the old rows of an epoch of `new` new rows."""
        return rehearsed(new, self.ratio)

    def prepare(self, context: Context) -> tuple["ReplayRows | HeldReplayRows", Sequence[Row]]:
        """Reads or draws the old rows, and asks the untouched model about them; the new rows stay as they are."""
        pool = pool_of(context, self.path, self.samples)
        if self.anchor == "labels":
            return ReplayRows(self, pool), context.rows
        held = changed(pool.rows, _unweighted, (UNWEIGHTED,))
        teacher = LiveTeacher(self.k)
        shards = SoftTargetShards(
            context.folder / "teacher",
            {"model": fingerprint(context.model), "tokenizer": tokenizer_fingerprint(context.tokenizer)},
            held if isinstance(held, Rows) else list({row.row_id: row for row in held}.values()),
            teacher,
            lambda rows: ask_model(context.model, pad_id(context.tokenizer), rows, teacher),
            "replay",
        )
        return HeldReplayRows(self, replace(pool, rows=held), shards.stored()), context.rows


def _unweighted(row: Row) -> Row:
    return replace(row, columns={**row.columns, UNWEIGHTED: (1.0,) * len(row)})


@dataclass(frozen=True, repr=False)
class ReplayRows(Prepared, MixesRows):
    """Mixes in rows of `pool`, the old rows that were read or drawn before training."""

    settings: Replay
    pool: Pool = field(repr=False)

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns `ratio` old rows per new row, another draw in each epoch."""
        return self.pool.drawn(self.settings.ratio, rng)


@dataclass(frozen=True, repr=False)
class HeldReplayRows(ReplayRows, Imitates):
    """Mixes them in, and holds them to what the untouched model said of them."""

    stored: Stored = field(repr=False)

    def teacher(self) -> Stored:
        """Returns what the untouched model said of the pool."""
        return self.stored

    def hold(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns 1 on the tokens of this pool's rows, else 0."""
        if UNWEIGHTED not in batch.columns:
            return torch.zeros_like(weights)
        known = self.stored.lines()
        ours = weights.new_tensor([row in known for row in batch.row_ids])
        return batch.columns[UNWEIGHTED].to(weights) * ours[:, None]

    def strength(self, step: int, steps: int) -> float:
        """Returns the same factor in every update."""
        return self.settings.strength
