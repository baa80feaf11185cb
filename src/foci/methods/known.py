"""What the model already says counts for nothing: known-token masking.

A token that the untouched model gives at least probability `share` has weight 0, all others 1. The cheapest way to tell
what is new: it needs no weigher, no answers and no questions, but it cannot tell knowledge from noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from foci import models
from foci.corpus import read_rows, write_rows
from foci.corpus.store import rows_key
from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.methods.rho import COLUMN
from foci.models.forward import row_nll
from foci.system.cache import kept


@dataclass(frozen=True)
class Known(WeighsTokens, Prepares):
    """Weight 0 on the tokens to which the untouched model gives at least probability `share`, 1 on the rest."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(
                f"known's share is a probability above 0 and below 1 (at 1 every token would count), got {self.share!r}"
            )

    def needs(self) -> frozenset[str]:
        """The column `start_nll`, the untouched model's NLL, that `prepare` makes."""
        return frozenset({COLUMN})

    def prepare(self, context: Context) -> tuple["Known", Sequence[Row]]:
        """Computes the untouched model's NLL of all rows, or reads what was kept; joins it to the rows by `row_id`.

        Raises ValueError where the model knows all tokens of the corpus or none, or what was kept is of another model
        or other rows.
        """
        scored = kept(
            context.folder / f"{COLUMN}.parquet",
            {"model": models.fingerprint(context.model), "rows": rows_key(context.rows)},
            lambda: [
                Row(row.row_id, row.input_ids, columns={COLUMN: nll})
                for row, nll in zip(context.rows, row_nll(context.model, context.tokenizer, context.rows), strict=True)
            ],
            write_rows,
            read_rows,
        )
        shares = [math.exp(-value) for row in scored for value in row.columns[COLUMN][1:]]
        if len({share >= self.share for share in shares}) < 2:
            raise ValueError(
                f"the model gives the tokens of the corpus probabilities from {min(shares, default=0):.3g} to "
                f"{max(shares, default=0):.3g}, so known's share, {self.share}, masks all of them or none; choose a "
                "share in between"
            )
        by_id = {row.row_id: row.columns[COLUMN] for row in scored}
        return self, [replace(row, columns={**row.columns, COLUMN: by_id[row.row_id]}) for row in context.rows]

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """1 where exp(-nll) < share. Raises ValueError where the column is not there."""
        if COLUMN not in batch.columns:
            raise ValueError(
                f"known reads the column {COLUMN!r}, got {sorted(batch.columns) or 'no columns'}; train on the rows "
                "that its prepare(context) returns"
            )
        return (batch.columns[COLUMN] > -math.log(self.share)).float()
