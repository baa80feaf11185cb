"""Each token counts as much as a learned weigher says: Train-Attention (TAALM, arXiv 2407.16920).

L = sum(w nll) / sum(w), w from a weigher that was trained (`foci meta`) so that a step on L lowers the loss of what
will be asked later. The weigher reads the corpus once, before training. Its weights lie between 0 and 1, or, from a
softplus (arXiv 2305.15076), above 0; here their scale counts beside rehearsed rows alone, whose weight is 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from foci.corpus import read_rows, write_rows
from foci.corpus.store import rows_key
from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.methods.train_attention.weigher import READY_MADE, check, load, weigh_rows
from foci.system.cache import kept

COLUMN = "train_attention"


@dataclass(frozen=True)
class TrainAttention(WeighsTokens, Prepares):
    """Weighs a token by a learned weigher's weight to the power of `power`.

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

    def needs(self) -> frozenset[str]:
        """The column `train_attention` that `prepare` makes."""
        return frozenset({COLUMN})

    def prepare(self, context: Context) -> tuple["TrainAttention", Sequence[Row]]:
        """Weighs all rows, or reads what was kept; joins it to the rows by `row_id`.

        Raises ValueError where there is no such weigher, or what was kept is of another weigher or other rows.
        """
        loaded = load(self.weigher)
        scored = kept(
            context.folder / f"{COLUMN}.parquet",
            {"weigher": loaded.fingerprint, "rows": rows_key(context.rows)},
            lambda: [
                Row(row.row_id, row.input_ids, columns={COLUMN: weights})
                for row, weights in zip(context.rows, weigh_rows(loaded, context.rows, context.tokenizer), strict=True)
            ],
            write_rows,
            read_rows,
        )
        by_id = {row.row_id: row.columns[COLUMN] for row in scored}
        return self, [replace(row, columns={**row.columns, COLUMN: by_id[row.row_id]}) for row in context.rows]

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """The column to the power of `power`. Raises ValueError where it is not there."""
        if COLUMN not in batch.columns:
            raise ValueError(
                f"train_attention reads the column {COLUMN!r}, got {sorted(batch.columns) or 'no columns'}; train on "
                "the rows that its prepare(context) returns"
            )
        return batch.columns[COLUMN].pow(self.power)
