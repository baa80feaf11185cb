"""Tokens that the untouched model finds unlikely do not count: selective token masking (arXiv 2501.14315).

A token whose perplexity under the untouched model, exp(nll), is above `threshold` has weight 0, all others 1. It is the
mirror of `known`, which ignores what the model already predicts.
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
class Stm(Prepares):
    """Ignores the tokens whose perplexity under the untouched model is above `threshold`; all others count alike.

    The perplexity of a token is 1 / (its probability): at 2.5, tokens below a probability of 0.4 are ignored.
    """

    threshold: float = 2.5

    def __post_init__(self) -> None:
        if not 1 < self.threshold < float("inf"):
            raise ValueError(
                f"stm's threshold is a finite perplexity above 1 (none is lower), got {self.threshold!r}; 2.5 is the "
                "paper's"
            )

    def prepare(self, context: Context) -> tuple["StmWeights", Sequence[Row]]:
        """Adds the column `start_nll`, the untouched model's NLL of every token in nats.

        Raises ValueError where all tokens of the corpus are on one side of the threshold, or the column was kept for
        another model or other rows.
        """
        rows = kept_column(
            context,
            COLUMN,
            {"model": models.fingerprint(context.model)},
            lambda rows: row_nll(context.model, context.tokenizer, rows),
        )
        least, most = range_of(rows, COLUMN)
        if (least > math.log(self.threshold)) == (most > math.log(self.threshold)):
            raise ValueError(
                f"under the untouched model the perplexities of the corpus' tokens go from {math.exp(least):.3g} to "
                f"{math.exp(min(most, 700)):.3g}, so stm's threshold, {self.threshold}, masks all of them or none; "
                "choose a threshold in between"
            )
        return StmWeights(self), rows


@dataclass(frozen=True, repr=False)
class StmWeights(Prepared, WeighsTokens):
    """Weighs tokens by whether the untouched model expected them."""

    settings: Stm

    def needs(self) -> frozenset[str]:
        """Names the column `start_nll`."""
        return frozenset({COLUMN})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns 1 where exp(nll) <= threshold, else 0. Raises ValueError where the column is not there."""
        return (column_of(batch, COLUMN, "stm") <= math.log(self.settings.threshold)).float()
