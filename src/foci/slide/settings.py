"""The settings of a slider: which shares of the change are asked, and the targets at which arms are compared.

Imports no torch.
"""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from foci.config.adapter import Section
from foci.learn.cells import all_different, as_tuple

How = Literal["scale", "prune"]
HOWS: tuple[str, ...] = get_args(How)
"""`scale` takes a share of the size of the change, `prune` a share of its entries."""
KEEP = 0.95
"""The share of what the untouched model knows that is kept where arms are compared by what they learn."""
PROSE = 1.01
"""The bits per byte of prose, over the untouched model's, at which arms are compared by the NLL of what they learn."""


def _rounded(share: float) -> float:
    """Returns a share with six decimals, as its file is named."""
    return round(share, 6)


Share = Annotated[float, Field(gt=0, le=1), AfterValidator(_rounded)]
Shares = Annotated[tuple[Share, ...], BeforeValidator(as_tuple), AfterValidator(all_different)]


class SlideConfig(Section):
    """The slider of a suite: every cell's change is scaled or pruned at its end, and the questions are asked along."""

    how: How = Field(default="scale", description="scale: a share of the change's size; prune: of its entries")
    points: Shares = Field(
        default=(0.2, 0.4, 0.6, 0.8, 1.0), description="shares of the change that are asked; 0 and 1 always are"
    )
    by: Literal["answers", "nll"] | None = Field(
        default=None,
        description="terminal and figures: answers, or nll with bits per byte; null = nll if all are spans",
    )
    keep: float = Field(default=KEEP, gt=0, le=1, description="what is learned is compared where this share is kept")
    prose: float = Field(
        default=PROSE, ge=1, description="NLL is compared at so many times the untouched model's bits per byte"
    )

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares that are asked, rising, from 0 (the untouched model) to 1 (the trained one)."""
        return tuple(sorted({0.0, *self.points, 1.0}))
