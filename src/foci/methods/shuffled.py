"""Puts the weights of another method on the wrong tokens: a control.

A method that does better than its shuffled control gains by which tokens it weighs, not by how unequal its weights are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.methods import build, roles_of
from foci.methods._prepared import Prepared
from foci.seeds import generator


@dataclass(frozen=True)
class Shuffled(Prepares):
    """Permutes the weights of the method `of` within each row, among its predicted tokens, always in the same way.

    `of` is written as in a run file: "oracle", or {"oracle": {"floor": 0.1}}. The permutation is a function of the
    row's id and length.
    """

    of: str | dict[str, dict[str, Any] | None] = "oracle"

    def __post_init__(self) -> None:
        method = build(self.of)
        roles = roles_of(type(method))
        if WeighsTokens not in roles:
            raise ValueError(
                f"shuffled permutes the weights of a method that weighs tokens, which {method!r} does not; try oracle"
            )
        if others := [role.__name__ for role in roles if role is not WeighsTokens]:
            raise ValueError(
                f"shuffled permutes weights alone, and {method!r} is {' and '.join(others)} too, which would be left "
                "out, so that it is no control; shuffle its weights as a method of their own"
            )

    def prepare(self, context: Context) -> tuple["ShuffledWeights", Sequence[Row]]:
        """Runs the other method's offline stage, if it has one."""
        method: Any = build(self.of)
        rows = context.rows
        if isinstance(method, Prepares):
            method, rows = method.prepare(context)
        return ShuffledWeights(self, method), rows


@dataclass(frozen=True, repr=False)
class ShuffledWeights(Prepared, WeighsTokens):
    """Weighs tokens by the permuted weights of `method`, the other method as it plays in training."""

    settings: Shuffled
    method: WeighsTokens = field(repr=False)

    def needs(self) -> frozenset[str]:
        """Names the columns that the other method needs."""
        return self.method.needs()

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns the other method's weights, each row's permuted. Raises ValueError for a batch without row ids."""
        if len(batch.row_ids) != len(batch.input_ids):
            raise ValueError(
                f"shuffled needs the id of every row, got {len(batch.row_ids)} ids for {len(batch.input_ids)} rows; "
                "train on foci Rows, or give the data a row_id"
            )
        weights = self.method.weigh(batch).clone()
        for line, predicted, row_id in zip(weights, batch.learned(), batch.row_ids, strict=True):
            places = predicted.nonzero()[:, 0]
            order = generator("shuffled", row_id).permutation(len(places))
            line[places] = line[places[torch.from_numpy(order).to(places.device)]]
        return weights
