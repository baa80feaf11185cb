"""Squared norms of gradients that are sums of outer products, sum_t l_t r_t^T, without holding one per example.

    ||sum_t l_t r_t^T||^2 = sum_{t,u} (l_t . l_u)(r_t . r_u)

or the norm of the product itself, whichever is cheaper by shape (arXiv 2009.03106, 2205.09632). A linear layer's
factors are output gradients and inputs, an embedding's are one-hot tokens and output gradients. Several uses of one
weight are one longer sum over t.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ELEMENTS = 2**22
"""Numbers that one product of factors holds at a time, 16 MiB in float32."""


def outer_squares(
    left: Float[Tensor, "batch token rows"], right: Float[Tensor, "batch token columns"]
) -> Float[Tensor, " batch"]:
    """||sum_t left_t right_t^T||^2 of every example (Frobenius), at least float32.

    By Gram matrices, token^2 (rows + columns) products, or by the sum itself, token rows columns, whichever is less.

    >>> outer_squares(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]))  # |(3, 2)|^2
    tensor([13.])
    """
    tokens, rows, columns = *left.shape[1:], right.shape[2]
    gram = tokens * (rows + columns) <= rows * columns
    size = max(1, ELEMENTS // (tokens**2 if gram else rows * columns))
    found = []
    for some, others in zip(left.split(size), right.split(size), strict=True):
        a, b = some.to(precision(left)), others.to(precision(left))
        product = (a @ a.mT) * (b @ b.mT) if gram else (a.mT @ b).square()
        found.append(product.sum((1, 2)))
    return torch.cat(found).clamp(min=0)


def lookup_squares(
    ids: Int[Tensor, "batch token"], gradient: Float[Tensor, "batch token width"]
) -> Float[Tensor, " batch"]:
    """||sum_t onehot(ids_t) gradient_t^T||^2 of every example: gradients of the same token add up first.

    >>> lookup_squares(torch.tensor([[7, 7, 3]]), torch.tensor([[[1.0], [2.0], [4.0]]]))  # (1 + 2)^2 + 4^2
    tensor([25.])
    """
    keys = ids + torch.arange(len(ids), device=ids.device)[:, None] * (ids.max() + 1)
    known, at = keys.unique(return_inverse=True)
    rows = torch.zeros(len(known), gradient.shape[2], dtype=precision(gradient), device=ids.device)
    rows.index_add_(0, at.flatten(), gradient.flatten(0, 1).to(rows.dtype))
    found = torch.zeros(len(ids), dtype=rows.dtype, device=ids.device)
    return found.index_add_(0, known // (ids.max() + 1), rows.square().sum(1))


def precision(tensor: Tensor) -> torch.dtype:
    """What sums over a tensor are made in: its own dtype, at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


@dataclass(frozen=True)
class Use:
    """One use of a weight, (rows, columns): its factors by example; `ids` in place of a one-hot left factor."""

    left: Tensor | None
    right: Tensor
    ids: Tensor | None = None

    @staticmethod
    def squares(uses: "Sequence[Use]") -> Float[Tensor, " batch"]:
        """Squared norm of the gradient that several uses, all with left factors or all with ids, add up to."""
        right = torch.cat([use.right for use in uses], 1) if len(uses) > 1 else uses[0].right
        lefts = [use.left for use in uses if use.left is not None]
        ids = [use.ids for use in uses if use.ids is not None]
        return outer_squares(torch.cat(lefts, 1), right) if lefts else lookup_squares(torch.cat(ids, 1), right)
