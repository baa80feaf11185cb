"""Tokens count by the probability that the learner gives them now: dynamic fine-tuning (arXiv 2508.05629, eq. 9).

    w_t = p_t = exp(-nll_t)        without a gradient through w

The less likely a token, the less it is learned. A new fact is unlikely, so this is a baseline for text that shall be
known, not a way to teach it.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, WeighsTokens
from foci.methods._prepared import column_of


@dataclass(frozen=True)
class Dft(WeighsTokens):
    """Weighs each token by the probability that the learner gives it now: what surprises it counts little."""

    def needs(self) -> frozenset[str]:
        """Names the learner's NLL."""
        return frozenset({"nll"})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns exp(-nll), between 0 and 1. Raises ValueError where the column is not there."""
        return (-column_of(batch, "nll", "dft")).exp()
