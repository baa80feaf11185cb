"""Old text beside the new, as much of it in every epoch.

The oldest answer to forgetting. With a file it is experience replay; without one the model's own samples stand in for
the text it learned from, as in arXiv 2605.26097 (self-generated replay).
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

from numpy.random import Generator

from foci.focus import Context, MixesRows, Prepares, Row
from foci.methods._rehearsal import Pool, pool_of


@dataclass(frozen=True)
class Replay(MixesRows, Prepares):
    """Mixes `ratio` old rows per new row into every epoch, from `path` or from the model's own samples.

    `path` names text files or folders as `corpus.path` does; None draws `samples` texts from the untouched model.
    """

    ratio: float = 1.0
    path: str | tuple[str, ...] | None = None
    samples: int = 256
    pool: Pool | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.ratio < float("inf") or self.samples < 1:
            raise ValueError(
                f"replay expected ratio > 0 old rows per new row and samples >= 1, got ratio {self.ratio} and "
                f"samples {self.samples}; 1.0 mixes half and half"
            )

    def prepare(self, context: Context) -> tuple["Replay", Sequence[Row]]:
        """Reads or draws the old rows; the new rows stay as they are."""
        online = copy(self)
        object.__setattr__(online, "pool", pool_of(context, self.path, self.samples))
        return online, context.rows

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """`ratio` old rows per new row, another draw in each epoch. Raises ValueError before `prepare` has run."""
        if self.pool is None:
            raise ValueError(f"{self!r} has no old rows yet; train with what its prepare(context) returns")
        return self.pool.drawn(self.ratio, rng)
