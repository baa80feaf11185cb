"""Rehearses old text, the same amount in every epoch.

The oldest answer to forgetting. With a file it is experience replay; without one the model's own samples stand in for
the text it learned from, as in arXiv 2605.26097 (self-generated replay).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from numpy.random import Generator

from foci.focus import Context, MixesRows, Prepares, Row
from foci.methods._prepared import Prepared
from foci.methods._rehearsal import Pool, pool_of


@dataclass(frozen=True)
class Replay(Prepares):
    """Adds old text, or the model's own samples, to every epoch, always the same amount.

    An epoch has `ratio` old rows per new row. `path` names text files or folders as `corpus.path` does; None draws
    `samples` texts from the untouched model.
    """

    ratio: float = 1.0
    path: str | tuple[str, ...] | None = None
    samples: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.ratio < float("inf") or self.samples < 1:
            raise ValueError(
                f"replay expected ratio > 0 old rows per new row and samples >= 1, got ratio {self.ratio} and "
                f"samples {self.samples}; 1.0 mixes half and half"
            )

    def prepare(self, context: Context) -> tuple["ReplayRows", Sequence[Row]]:
        """Reads or draws the old rows; the new rows stay as they are."""
        return ReplayRows(self, pool_of(context, self.path, self.samples)), context.rows


@dataclass(frozen=True, repr=False)
class ReplayRows(Prepared, MixesRows):
    """Mixes in rows of `pool`, the old rows that were read or drawn before training."""

    settings: Replay
    pool: Pool = field(repr=False)

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns `ratio` old rows per new row, another draw in each epoch."""
        return self.pool.drawn(self.settings.ratio, rng)
