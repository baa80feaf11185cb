"""Tokens that the model already predicts do not count: known-token masking.

A token that the untouched model gives at least probability `share` has weight 0, all others 1. It is the cheapest way
to tell what is new: it needs no weigher, no answers and no questions, but it cannot tell knowledge from noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from foci import models
from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.methods._prepared import Prepared, column_of, kept_column, range_of
from foci.methods.rho import COLUMN
from foci.models.forward import row_nll


@dataclass(frozen=True)
class Known(Prepares):
    """Ignores the tokens to which the untouched model gives at least probability `share`; all others count alike."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(
                f"known's share is a probability above 0 and below 1 (at 1 every token would count), got {self.share!r}"
            )

    def prepare(self, context: Context) -> tuple["KnownWeights", Sequence[Row]]:
        """Adds the column `start_nll`, the untouched model's NLL of every token in nats.

        Raises ValueError where the model knows all tokens of the corpus or none, or the column was kept for another
        model or other rows.
        """
        rows = kept_column(
            context,
            COLUMN,
            {"model": models.fingerprint(context.model)},
            lambda rows: row_nll(context.model, context.tokenizer, rows),
        )
        most, least = (math.exp(-value) for value in range_of(rows, COLUMN))
        if (least >= self.share) == (most >= self.share):
            raise ValueError(
                f"the model gives the tokens of the corpus probabilities from {least:.3g} to {most:.3g}, so known's "
                f"share, {self.share}, masks all of them or none; choose a share in between"
            )
        return KnownWeights(self), rows


@dataclass(frozen=True, repr=False)
class KnownWeights(Prepared, WeighsTokens):
    """Weighs tokens by what the untouched model knew of them."""

    settings: Known

    def needs(self) -> frozenset[str]:
        """Names the column `start_nll`."""
        return frozenset({COLUMN})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns 1 where exp(-nll) < share, else 0. Raises ValueError where the column is not there."""
        return (column_of(batch, COLUMN, "known") > -math.log(self.settings.share)).float()
