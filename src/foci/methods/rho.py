"""Only the tokens on which the learner is furthest behind a reference count: RHO-1 (arXiv 2404.07965).

excess = nll of the learner - nll of the reference, in nats; the `keep` share of an update's tokens with the largest
excess is trained on, all alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from foci import models
from foci.corpus import read_rows, tokenizer_fingerprint, write_rows
from foci.corpus.store import rows_key
from foci.focus import REHEARSED, Batch, Context, Prepares, Row, WeighsTokens
from foci.models.forward import row_nll
from foci.system.cache import kept

COLUMN = "start_nll"
"""The reference's NLL of each token in nats; 0 at a row's first."""


def top_share(
    excess: Float[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"], keep: float
) -> Bool[Tensor, "batch seq"]:
    """True on the `keep` share (rounded up) of the counted tokens with the largest excess, over all rows together.

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
class Rho(WeighsTokens, Prepares):
    """Weight 1 on the `keep` share of an update's tokens whose loss exceeds the reference's most, 0 on the rest.

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

    def needs(self) -> frozenset[str]:
        """The learner's NLL, and `start_nll`, the reference's."""
        return frozenset({"nll", COLUMN})

    def prepare(self, context: Context) -> tuple["Rho", Sequence[Row]]:
        """Computes the reference's NLL of all rows, or reads what was kept; joins it to the rows by `row_id`.

        Raises ValueError where the reference has another tokenizer, or what was kept is of another reference or rows.
        """
        model = context.model if self.reference is None else self._loaded(self.reference, context)
        scored = kept(
            context.folder / f"{COLUMN}.parquet",
            {"reference": models.fingerprint(model), "rows": rows_key(context.rows)},
            lambda: _scored(model, context),
            write_rows,
            read_rows,
        )
        by_id = {row.row_id: row.columns[COLUMN] for row in scored}
        rows = [replace(row, columns={**row.columns, COLUMN: by_id[row.row_id]}) for row in context.rows]
        return self, rows

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """1 on the tokens that are kept. Padding and rehearsed rows are neither kept nor counted."""
        if missing := sorted(self.needs() - set(batch.columns)):
            raise ValueError(
                f"rho compares the learner's NLL with the reference's: expected the columns nll and {COLUMN}, missing "
                f"{missing}; train on the rows that its prepare(context) returns"
            )
        counted = batch.predicted()
        if REHEARSED in batch.columns:
            counted &= batch.columns[REHEARSED] == 0
        return top_share(batch.columns["nll"] - batch.columns[COLUMN], counted, self.keep).float()

    def _loaded(self, name: str, context: Context) -> PreTrainedModel:
        loaded = models.load(name, dtype="float32", device=str(context.model.device))
        theirs, ours = tokenizer_fingerprint(loaded.tokenizer), tokenizer_fingerprint(context.tokenizer)
        if theirs != ours:
            raise ValueError(
                f"rho's reference {name!r} has another tokenizer ({theirs}) than the model that learns ({ours}), so "
                "its losses are of other tokens; name a model of the same tokenizer"
            )
        return loaded.model


def _scored(model: PreTrainedModel, context: Context) -> list[Row]:
    nll = row_nll(model, context.tokenizer, context.rows)
    return [Row(row.row_id, row.input_ids, columns={COLUMN: n}) for row, n in zip(context.rows, nll, strict=True)]
