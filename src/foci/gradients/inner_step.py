"""One training step on weighted tokens: its loss, its update, and the influence of a token's weight through it.

`foci.gradients.influence` differentiates a later loss through this step.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foci.config.values import Inner, Normalise
from foci.models.losses import weighted_mean

ADAM_FLOOR = 1e-8
"""Added to g^2 inside the root of Adam's first step: without it the step is sign(g), whose derivative is 0."""


@dataclass(frozen=True)
class InnerStep:
    """The step theta' = theta - lr * u(g), g = grad L(theta, w).

    `normalise` chooses the loss. "row": L is the mean over rows of sum(w nll) / sum(w) of each row. "batch": L is
    sum(w nll) / sum(w) of the whole batch. "none": L = sum(w nll) / N, N the tokens of the batch that have an NLL, so
    that larger weights make a larger step (arXiv 2305.15076, section 3, where a batch is one document); at w = 1 it is
    the same as "batch".

    `kind` "sgd": u(g) = g. "adam": Adam's first step with 1e-8 inside the root, u(g) = g / sqrt(g^2 + 1e-8). With a
    `length` the rate is chosen so that |theta' - theta| (L2 over all weights) equals it; derivatives treat that rate as
    a constant. Raises ValueError for settings out of range.
    """

    lr: float = 0.0
    kind: Inner = "sgd"
    normalise: Normalise = "row"
    length: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.lr < float("inf") or self.kind not in ("sgd", "adam"):
            raise ValueError(f"an inner step is 'sgd' or 'adam' with a rate of at least 0, got {self}")
        if self.length is not None and (not 0 < self.length < float("inf") or self.lr):
            raise ValueError(f"an inner step has a rate or a length above 0, not both, got {self}")
        if self.normalise not in ("row", "batch", "none"):
            raise ValueError(f"normalise is 'row', 'batch' or 'none', got {self.normalise!r}")

    def update(self, gradient: Tensor) -> Tensor:
        """Returns u(g): what the step subtracts, divided by the rate."""
        return gradient if self.kind == "sgd" else gradient * (gradient.square() + ADAM_FLOOR).rsqrt()

    def slope(self, gradient: Tensor) -> Tensor | float:
        """Returns du/dg, elementwise.

        >>> InnerStep(1e-3, "adam").slope(torch.tensor([0.0, 1e-4])).round()
        tensor([10000.,  3536.])
        """
        return 1.0 if self.kind == "sgd" else ADAM_FLOOR * (gradient.square() + ADAM_FLOOR).pow(-1.5)

    def loss(
        self, nll: Float[Tensor, "batch seq"], weights: Float[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, ""]:
        """Returns L in nats. `counted` marks the tokens that have an NLL. Rows without weight count only with "none".

        >>> nll, weights = torch.tensor([[0.0, 2.0, 4.0]]), torch.tensor([[0.0, 3.0, 1.0]])
        >>> InnerStep(normalise="none").loss(nll, weights, torch.tensor([[False, True, True]]))  # (6 + 4) / 2
        tensor(5.)
        """
        if self.normalise == "none":
            return (weights * nll).sum() / counted.sum()
        if self.normalise == "batch":
            return weighted_mean(nll, weights)
        sums = weights.sum(1)
        has = sums > 0
        return ((weights * nll).sum(1) / torch.where(has, sums, torch.ones_like(sums)) * has).sum() / has.sum()

    def influence(
        self,
        alignment: Float[Tensor, "batch seq"],
        weights: Float[Tensor, "batch seq"],
        counted: Bool[Tensor, "batch seq"],
    ) -> Float[Tensor, "batch seq"]:
        """Returns d(later loss) / d(weight) from alignments j: -(lr / W) (j - sum(w j) / W) where `counted`, else 0.

        W and the sum are over the batch, or over a row (then also divided by the number of rows). With "none" it is
        -(lr / N) j, N the counted tokens: a token's weight takes nothing from the others.

        >>> alignment, counted = torch.tensor([[9.0, 1.0, 3.0]]), torch.tensor([[False, True, True]])
        >>> InnerStep(0.5).influence(alignment, torch.tensor([[0.0, 1.0, 1.0]]), counted)
        tensor([[ 0.0000,  0.2500, -0.2500]])
        """
        if self.normalise == "none":
            return (-(self.lr / counted.sum()) * alignment).masked_fill(~counted, 0.0)
        weights = weights * counted
        weighted, sums, rows = weights * alignment, weights.sum(1, keepdim=True), 1
        if self.normalise == "batch":
            total, mean = sums.sum(), weighted.sum() / sums.sum()
        else:
            counted, rows = counted & (sums > 0), int((sums > 0).sum())
            total = torch.where(sums > 0, sums, torch.ones_like(sums))
            mean = weighted.sum(1, keepdim=True) / total
        return (-(self.lr / (rows * total)) * (alignment - mean)).masked_fill(~counted, 0.0)
