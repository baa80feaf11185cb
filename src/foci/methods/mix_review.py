"""Rehearses old text, less of it in every epoch: mix-review (arXiv 1910.07117).

Replay whose ratio decays: much rehearsal at first, when the weights move most, and hardly any in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from numpy.random import Generator

from foci.focus import Context, MixesRows, Prepares, Row
from foci.methods._prepared import Prepared
from foci.methods._rehearsal import ENCYCLOPEDIA, Pool, pool_of


def decayed(ratio: int | float, decay: int | float, epoch: int) -> float:
    """Returns the old rows per new row in an epoch, counted from 0: ratio * decay ** epoch.

    >>> [round(decayed(4.0, 0.7, epoch), 3) for epoch in range(4)]
    [4.0, 2.8, 1.96, 1.372]
    """
    return ratio * decay**epoch


@dataclass(frozen=True)
class MixReview(Prepares):
    """Adds old text, or the model's own samples, to every epoch, each time less.

    An epoch has `ratio` * `decay`^epoch old rows per new row. `path` names text files or folders as `corpus.path` does;
    None draws `samples` texts from the untouched model.
    """

    grows: ClassVar[bool] = False

    ratio: float = 4.0
    decay: float = 0.7
    path: str | tuple[str, ...] | None = None
    samples: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.ratio < float("inf") or not 0 < self.decay <= 1 or self.samples < 1:
            raise ValueError(
                f"mix_review expected ratio > 0, 0 < decay <= 1 and samples >= 1, got ratio {self.ratio}, "
                f"decay {self.decay}, samples {self.samples}; the paper's are 4 and 0.7"
            )

        if self.path == ENCYCLOPEDIA:
            raise ValueError(
                f"mix_review learns its old text, and the texts of {self.path!r} are about things that do not exist; "
                "write replay with anchor: kl, or ./encyclopedia for a folder of that name"
            )

    def prepare(self, context: Context) -> tuple["MixReviewRows", Sequence[Row]]:
        """Reads or draws the old rows; the new rows stay as they are."""
        return MixReviewRows(self, pool_of(context, self.path, self.samples)), context.rows


@dataclass(frozen=True, repr=False)
class MixReviewRows(Prepared, MixesRows):
    """Mixes in rows of `pool`, the old rows that were read or drawn before training."""

    settings: MixReview
    pool: Pool = field(repr=False)

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns the old rows of one epoch, counted from 0."""
        return self.pool.drawn(decayed(self.settings.ratio, self.settings.decay, epoch), rng)
