"""Only the tokens on which the learner is furthest behind a reference model count: RHO-1 (arXiv 2404.07965).

The excess loss of a token is the learner's NLL less the reference's, in nats. The `keep` fraction of an update's tokens
with the largest excess is trained on, with equal weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foci import models
from foci.focus import REHEARSED, Batch, Context, Prepares, Row, WeighsTokens
from foci.methods._prepared import Prepared, column_of, kept_column, named_model
from foci.models.forward import row_nll

COLUMN, REFERENCE = "start_nll", "reference_nll"
"""NLL of each token in nats, 0 at a row's first: the untouched model's, and that of a reference with another name."""


def top_share(
    excess: Float[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"], keep: float
) -> Bool[Tensor, "batch seq"]:
    """Marks the `keep` share (rounded up) of the counted tokens with the largest excess, over all rows together.

    Of tokens with the same excess the earlier one is kept: earlier row, then earlier position.

    >>> excess = torch.tensor([[9.0, 0.5, 2.0], [9.0, 1.0, 9.0]])
    >>> top_share(excess, torch.tensor([[False, True, True], [False, True, False]]), keep=0.6)
    tensor([[False, False,  True],
            [False,  True, False]])
    """
    places = counted.flatten().nonzero()[:, 0]
    count = math.ceil(keep * len(places) - 1e-9)  # 0.7 * 10 is 7.000000000000001
    order = excess.flatten()[places].argsort(descending=True, stable=True)
    kept_places = torch.zeros_like(counted).flatten()
    kept_places[places[order[:count]]] = True
    return kept_places.view_as(counted)


@dataclass(frozen=True)
class Rho(Prepares):
    """Trains only on the `keep` fraction of tokens with the largest excess loss over a reference model.

    `reference` names a model of the same tokenizer, as `model.name` does; None is the model as training starts.
    """

    keep: float = 0.6
    reference: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ValueError(
                f"rho's keep is a share above 0 and below 1 (1 would keep every token), got {self.keep!r}; "
                "the paper's are 0.6 (1.1B) and 0.7 (7B)"
            )

    @property
    def column(self) -> str:
        """The reference's column; that of the untouched model is shared with other methods, another model's is not."""
        return COLUMN if self.reference is None else REFERENCE

    def prepare(self, context: Context) -> tuple["RhoWeights", Sequence[Row]]:
        """Adds the column `start_nll` (of a named reference: `reference_nll`), its NLL of every token in nats.

        Raises ValueError where the reference has another tokenizer, or the column was kept for another reference or
        other rows.
        """
        model = context.model if self.reference is None else named_model(self.reference, context, "rho's reference")
        rows = kept_column(
            context,
            self.column,
            {"reference": models.fingerprint(model)},
            lambda rows: row_nll(model, context.tokenizer, rows),
        )
        return RhoWeights(self), rows


@dataclass(frozen=True, repr=False)
class RhoWeights(Prepared, WeighsTokens):
    """Weighs tokens by how far the learner is behind the reference."""

    settings: Rho

    def needs(self) -> frozenset[str]:
        """Names the learner's NLL and the reference's."""
        return frozenset({"nll", self.settings.column})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns 1 on the tokens that are kept, else 0. Padding, questions and rehearsed rows are not kept or counted.

        Raises ValueError where a column is not there.
        """
        counted = batch.learned()
        if REHEARSED in batch.columns:
            counted &= batch.columns[REHEARSED] == 0
        excess = column_of(batch, "nll", "rho") - column_of(batch, self.settings.column, "rho")
        return top_share(excess, counted, self.settings.keep).float()
