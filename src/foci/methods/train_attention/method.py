"""Weighs tokens by a trained model, the weigher: Train-Attention (TAALM, arXiv 2407.16920).

L = sum(w nll) / sum(w), w from a weigher that was trained (`foci meta`) so that a step on L lowers the loss of what
will be asked later. The weigher reads the corpus once, before training. Its weights lie between 0 and 1, or, from a
softplus (arXiv 2305.15076), above 0; here their scale counts beside rehearsed rows alone, whose weight is 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.methods._prepared import Prepared, column_of, kept_column
from foci.methods.train_attention.weigher import READY_MADE, check, load, weigh_rows

COLUMN = "train_attention"


@dataclass(frozen=True)
class TrainAttention(Prepares):
    """Weighs each token by a weight that a trained model (a weigher) predicts for it, to the power of `power`.

    `weigher` is a folder that `foci meta` wrote, or "ready-made": the one that comes with foci.
    """

    weigher: str = READY_MADE
    power: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.power < float("inf"):
            raise ValueError(
                f"train_attention's power is a finite number above 0, got {self.power!r}; 1 takes the weights as they "
                "are, 2 makes them sharper"
            )
        check(self.weigher)

    def prepare(self, context: Context) -> tuple["TrainAttentionWeights", Sequence[Row]]:
        """Adds the column `train_attention`, the weigher's weight of every token.

        Raises ValueError where there is no such weigher, or the column was kept for another weigher or other rows.
        """
        loaded = load(self.weigher)
        rows = kept_column(
            context,
            COLUMN,
            {"weigher": loaded.fingerprint},
            lambda rows: weigh_rows(loaded, rows, context.tokenizer),  # type: ignore[arg-type]
        )
        return TrainAttentionWeights(self), rows


@dataclass(frozen=True, repr=False)
class TrainAttentionWeights(Prepared, WeighsTokens):
    """Weighs tokens by the weigher's column."""

    settings: TrainAttention

    def needs(self) -> frozenset[str]:
        """Names the column `train_attention`."""
        return frozenset({COLUMN})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns the column to the power of `power`. Raises ValueError where it is not there."""
        return column_of(batch, COLUMN, "train_attention").pow(self.settings.power)
