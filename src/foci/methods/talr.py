"""Tokens count by a tempered probability: token-adaptive loss reweighting (arXiv 2509.20758, section 4).

    w_t = max(p_t^(1 / tau), floor) = max(exp(-nll_t / tau), floor)        without a gradient through w
    tau = median over the update's rows of the row's mean NLL

While all is new, tau is large and weights are nearly alike. As text is learned, tau falls, and what is still
unlikely counts less and less, down to `floor`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foci.focus import REHEARSED, Batch, WeighsTokens
from foci.methods._prepared import column_of


def median_row_nll(nll: Float[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"]) -> Float[Tensor, ""]:
    """Returns the median over rows of the mean NLL of a row's counted tokens, in nats; rows without one are left out.

    Of an even number of rows it is the mean of the middle two; of none, 1.

    >>> median_row_nll(torch.tensor([[0.0, 2.0], [0.0, 4.0]]), torch.tensor([[False, True], [False, True]]))
    tensor(3.)
    """
    counts = counted.sum(1)
    means = torch.where(counted, nll, torch.zeros_like(nll)).sum(1)[counts > 0] / counts[counts > 0]
    return means.quantile(0.5) if len(means) else nll.new_ones(())


@dataclass(frozen=True)
class Talr(WeighsTokens):
    """Weighs each token by the learner's probability to the power 1 / tau, at least `floor`.

    tau is the update's median of the rows' mean NLL in nats: a lower tau gives unlikely tokens less weight.
    """

    floor: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise ValueError(
                f"talr's floor is a weight of at least 0 and below 1 (1 would weigh all tokens alike), got "
                f"{self.floor!r}; 0.01 is the paper's"
            )

    def needs(self) -> frozenset[str]:
        """Names the learner's NLL."""
        return frozenset({"nll"})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns max(exp(-nll / tau), floor); rehearsed rows, questions and padding do not count for tau.

        Raises ValueError where the column is not there.
        """
        nll, counted = column_of(batch, "nll", "talr"), batch.learned()
        if REHEARSED in batch.columns:
            counted = counted & (batch.columns[REHEARSED] == 0)
        tau = median_row_nll(nll, counted).clamp(min=torch.finfo(nll.dtype).tiny)
        return (-nll / tau).exp().clamp(min=self.floor)
