"""Changes of weights, one for each row of a batch: arrays, or the factors of matrices, and what can be done with them.

A change of a matrix is sum_t left_t right_t^T over the tokens of a row, as its gradient is (`factors.Use`). Products
with inputs, sums, and inner products of two changes need no whole matrix.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from foci.gradients.factors import Use

Change = Tensor | tuple[Use, ...]
"""Added to a parameter for each row: (rows, *shape), or the factors of a matrix."""
Changes = Mapping[Tensor, Change]


class NoOwnWeightsError(Exception):
    """The model uses a trained parameter in a way that cannot differ between rows, or a step has no derivative."""


def mapped(change: Change, inputs: Float[Tensor, "rows token wide"]) -> Float[Tensor, "rows token out"]:
    """Returns the change of a matrix times the inputs, row by row."""
    if isinstance(change, Tensor):
        return inputs @ change.mT
    total: Tensor | None = None
    for use in change:
        inner = inputs @ use.right.mT
        if use.left is None:
            continue
        total = inner @ use.left if total is None else total + inner @ use.left
    for use in change:
        if use.ids is not None:
            assert total is not None, "an embedding that is no LM head is not a linear map"
            total = total.scatter_add(2, use.ids[:, None].expand(-1, inputs.shape[1], -1), inputs @ use.right.mT)
    assert total is not None
    return total


def looked_up(change: Change, ids: Tensor) -> Tensor:
    """Returns the rows of a matrix' change at some tokens, (rows, token, width)."""
    if isinstance(change, Tensor):
        return change.gather(1, ids[..., None].expand(-1, -1, change.shape[-1]))
    parts = []
    for use in change:
        if use.ids is not None:
            parts.append((ids[:, :, None] == use.ids[:, None]).to(use.right) @ use.right)
        elif use.left is not None:
            parts.append(use.left.gather(2, ids[:, None].expand(-1, use.left.shape[1], -1)).mT @ use.right)
    return torch.stack(parts).sum(0)


def scaled(change: Change, by: Float[Tensor, " rows"]) -> Change:
    """Returns each row's change times a number."""
    if isinstance(change, Tensor):
        return change * by.view(-1, *[1] * (change.ndim - 1))
    return tuple(Use(use.left, use.right * by[:, None, None], use.ids) for use in change)


def taken(change: Change, rows: Tensor) -> Change:
    """Returns the changes of some rows, in the order of `rows`."""
    if isinstance(change, Tensor):
        return change[rows]
    return tuple(
        Use(None if use.left is None else use.left[rows], use.right[rows], None if use.ids is None else use.ids[rows])
        for use in change
    )


def added(change: Change, to: Tensor, count: int) -> Change:
    """Returns `count` changes: number n is the sum of the changes of the rows where `to` is n."""
    to = to.to(change.device if isinstance(change, Tensor) else change[0].right.device)
    if isinstance(change, Tensor):
        return change.new_zeros(count, *change.shape[1:]).index_add_(0, to, change)
    order, counts = to.argsort(stable=True), torch.bincount(to, minlength=count)
    where = torch.arange(int(counts.max()), device=to.device) < counts[:, None]
    rows = torch.zeros(where.shape, dtype=torch.long, device=to.device)
    rows[where] = order
    found = []
    for use in taken(change, rows.flatten()):
        assert isinstance(use, Use)
        right = use.right * where.flatten()[:, None, None]
        left, ids = (None if part is None else part.reshape(count, -1, *part.shape[2:]) for part in (use.left, use.ids))
        found.append(Use(left, right.reshape(count, -1, right.shape[-1]), ids))
    return tuple(found)


def dense(change: Change, parameter: Tensor) -> Float[Tensor, "rows ..."]:
    """Returns the change as one array of the parameter's shape for each row."""
    if isinstance(change, Tensor):
        return change
    total = torch.zeros(len(change[0].right), *parameter.shape, dtype=parameter.dtype, device=parameter.device)
    for use in change:
        if use.left is not None:
            total += use.left.mT @ use.right
        elif use.ids is not None:
            total.scatter_add_(1, use.ids[..., None].expand_as(use.right), use.right)
    return total


def products(one: Changes, other: Changes) -> Float[Tensor, " rows"]:
    """Returns <one, other> of every row, the sum over all parameters that both have."""
    total: Tensor | None = None
    for p, change in one.items():
        if p in other:
            found = _product(change, other[p])
            total = found if total is None else total + found
    if total is None:
        raise NoOwnWeightsError("no parameter has a gradient in both passes")
    return total


def _product(one: Change, other: Change) -> Tensor:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return (one * other).flatten(1).sum(1)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        raise TypeError(f"factors are multiplied with factors, got {type(one).__name__} and {type(other).__name__}")
    return torch.stack([(_lefts(a, b) * (a.right @ b.right.mT)).sum((1, 2)) for a in one for b in other]).sum(0)


def _lefts(one: Use, other: Use) -> Tensor:
    """Returns the products of left factors, (rows, tokens of one, tokens of the other); ids are one-hot."""
    if one.ids is not None and other.ids is not None:
        return (one.ids[:, :, None] == other.ids[:, None]).to(one.right)
    if one.ids is not None:
        return _lefts(other, one).mT
    assert one.left is not None
    if other.ids is not None:
        return one.left.gather(2, other.ids[:, None].expand(-1, one.left.shape[1], -1))
    assert other.left is not None
    return one.left @ other.left.mT
