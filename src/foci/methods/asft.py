"""Dynamic fine-tuning, held to the untouched model: anchored supervised fine-tuning (arXiv 2509.23753).

    loss = sum(w nll) / sum(w) + strength * mean of KL(untouched model || learner)        w_t = p_t, as in `dft`

The divergence is over all tokens of the new text, in nats.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, Context, Imitates, LiveTeacher, Prepares, Row, StoredTeacher, WeighsTokens
from foci.methods._prepared import Prepared
from foci.methods.dft import Dft
from foci.methods.lwf import Lwf, LwfHold


@dataclass(frozen=True)
class Asft(Prepares):
    """Weighs each token by the probability that the learner gives it, and holds all tokens to the untouched model.

    `strength` is the factor of the divergence. `teacher` is asked once before training ("columns", for rows that are
    read as they are) or in every update ("live", for rows that another method edits). `k` of its likeliest tokens are
    kept.
    """

    strength: float = 0.1
    teacher: Literal["columns", "live"] = "columns"
    k: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf") or self.k < 1:
            raise ValueError(
                f"asft expected a finite strength above 0 and k >= 1 tokens, got {self.strength!r} and {self.k}; 0.1 "
                "is the paper's strength, and dft has none"
            )

    def prepare(self, context: Context) -> tuple["AsftWeights", Sequence[Row]]:
        """Asks the untouched model about every token of the rows, or, with a live teacher, nothing yet."""
        hold, rows = self._hold().prepare(context)
        return AsftWeights(self, hold), rows

    def fill(self, context: Context, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """Asks for part `number` of `count` of the rows; yields tokens and seconds of each shard."""
        yield from self._hold().fill(context, number, count)

    def _hold(self) -> Lwf:
        return Lwf(self.strength, on="all", teacher=self.teacher, k=self.k)


@dataclass(frozen=True, repr=False)
class AsftWeights(Prepared, WeighsTokens, Imitates):
    """Weighs tokens as `dft` does, and holds them as `lwf` does."""

    settings: Asft
    kept: LwfHold = field(repr=False)

    def needs(self) -> frozenset[str]:
        """Names the learner's NLL."""
        return Dft().needs()

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns exp(-nll), between 0 and 1. Raises ValueError where the column is not there."""
        return Dft().weigh(batch)

    def teacher(self) -> LiveTeacher | StoredTeacher:
        """Returns the untouched model, or what it said before training."""
        return self.kept.teacher()

    def hold(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns 1 on every token of the new rows."""
        return self.kept.hold(batch, weights)

    def strength(self, step: int, steps: int) -> float:
        """Returns the same factor in every update."""
        return self.kept.strength(step, steps)
