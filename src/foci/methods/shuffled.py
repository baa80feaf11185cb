"""A control: the weights of another method, on the wrong tokens.

What a method gains over this, it gains by where its weights lie, not by how they are distributed.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.methods import build
from foci.seeds import generator


@dataclass(frozen=True)
class Shuffled(WeighsTokens, Prepares):
    """Weights of the method `of`, permuted within each row among its predicted tokens, always alike.

    `of` is written as in a run file: "oracle", or {"oracle": {"floor": 0.1}}. The permutation is a function of the
    row's id and length.
    """

    of: str | dict[str, dict[str, Any] | None] = "oracle"
    method: WeighsTokens = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        method = build(self.of)
        if not isinstance(method, WeighsTokens):
            raise ValueError(  # noqa: TRY004
                f"shuffled permutes the weights of a method that weighs tokens, which {method!r} does not; try oracle"
            )
        object.__setattr__(self, "method", method)

    def needs(self) -> frozenset[str]:
        """What the other method needs."""
        return self.method.needs()

    def prepare(self, context: Context) -> tuple["Shuffled", Sequence[Row]]:
        """Runs the other method's offline half, if it has one."""
        if not isinstance(self.method, Prepares):
            return self, context.rows
        method, rows = self.method.prepare(context)
        online = copy(self)
        object.__setattr__(online, "method", method)
        return online, rows

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """The other method's weights, each row's permuted. Raises ValueError for a batch without row ids."""
        if len(batch.row_ids) != len(batch.input_ids):
            raise ValueError(
                f"shuffled needs the id of every row, got {len(batch.row_ids)} ids for {len(batch.input_ids)} rows; "
                "train on foci Rows, or give the data a row_id"
            )
        weights = self.method.weigh(batch).clone()
        for line, predicted, row_id in zip(weights, batch.predicted(), batch.row_ids, strict=True):
            places = predicted.nonzero()[:, 0]
            order = generator("shuffled", row_id).permutation(len(places))
            line[places] = line[places[torch.from_numpy(order).to(places.device)]]
        return weights
