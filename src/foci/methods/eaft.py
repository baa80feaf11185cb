"""Tokens count by how unsure the learner is: entropy-adaptive fine-tuning (arXiv 2601.02151).

    w_t = (H_t / 3.0)^alpha        without a gradient through w

H_t is the entropy, in nats, of the learner's 20 likeliest tokens where token t is predicted, their probabilities scaled
to sum to 1. The most it can be is ln 20 = 2.996. Where the learner is sure, right or wrong, hardly anything is learned.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from foci.focus import ENTROPY, Batch, WeighsTokens
from foci.methods._prepared import column_of

LARGEST = 3.0
"""The published divisor, about ln 20. It does not change what is learned: the scale of weights does not matter."""


@dataclass(frozen=True)
class Eaft(WeighsTokens):
    """Weighs each token by the learner's entropy where it is predicted: what the learner is sure of counts little.

    The weight is (entropy / 3) to the power `alpha`; a larger `alpha` puts more weight on the most unsure places.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(
                f"eaft's alpha is a finite power above 0 (0 would weigh all tokens alike), got {self.alpha!r}; 1 is "
                "the paper's"
            )

    def needs(self) -> frozenset[str]:
        """Names the learner's entropy."""
        return frozenset({ENTROPY})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns (entropy / 3)^alpha. Raises ValueError where the column is not there."""
        return (column_of(batch, ENTROPY, "eaft") / LARGEST) ** self.alpha
