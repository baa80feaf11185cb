"""Squared norms of gradients that are sums of outer products, sum_t l_t r_t^T, without the gradients themselves.

    ||sum_t l_t r_t^T||^2 = sum_{t,u} (l_t . l_u)(r_t . r_u)

If the product itself is cheaper for the shapes at hand, its norm is taken instead (arXiv 2009.03106, 2205.09632). The
factors of a linear layer are its output gradients and inputs, those of an embedding are one-hot tokens and output
gradients. Several uses of one weight make one longer sum over t.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ELEMENTS = 2**22
"""Most numbers in one product of factors, 16 MiB in float32."""


def outer_squares(
    left: Float[Tensor, "batch token rows"], right: Float[Tensor, "batch token columns"]
) -> Float[Tensor, " batch"]:
    """Returns ||sum_t left_t right_t^T||^2 (Frobenius) of every example, in float32 or better.

    Uses Gram matrices, token^2 (rows + columns) products, or the sum itself, token rows columns, whichever is less.

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
    """Returns ||sum_t onehot(ids_t) gradient_t^T||^2 of every example: gradients of the same token are added first.

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
    """Returns the dtype for sums over a tensor: its own, float32 or better."""
    return torch.promote_types(tensor.dtype, torch.float32)


@dataclass(frozen=True)
class Use:
    """The factors of one use of a weight (rows, columns) by example; `ids` stand for a one-hot left factor."""

    left: Tensor | None
    right: Tensor
    ids: Tensor | None = None

    @staticmethod
    def squares(uses: "Sequence[Use]") -> Float[Tensor, " batch"]:
        """Returns the squared norm of the gradient of several uses together: all with left factors, or all with ids."""
        right = torch.cat([use.right for use in uses], 1) if len(uses) > 1 else uses[0].right
        lefts = [use.left for use in uses if use.left is not None]
        ids = [use.ids for use in uses if use.ids is not None]
        return outer_squares(torch.cat(lefts, 1), right) if lefts else lookup_squares(torch.cat(ids, 1), right)
