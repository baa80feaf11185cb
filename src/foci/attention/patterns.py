"""How far attention heads are from simple patterns, without an S x S map and with an analytic gradient.

For a query i with target key t, attention A_i = softmax(s_i) and the pattern P_i = one-hot(t):

    ||A_i - P_i||^2  =  exp(LSE(2 s_i) - 2 LSE(s_i)) - 2 exp(s_i,t - LSE(s_i)) + 1  =  e_i - 2 p_i + 1

with e_i = sum_j A_ij^2 and p_i = A_it, so a pattern needs one block of queries at a time. The gradient is

    d/ds_ij  =  2 A_ij (A_ij - e_i + p_i) - 2 p_i [j = t]

and for a learned sink, whose probability is a_i, 2 a_i (p_i - e_i). Where P_i is spread over keys with weights w_j,
p_i = sum_j w_j A_ij, and ||w||^2 and w_j stand in place of 1 and [j = t]; where P_i is all zero, p_i = 0, and 0 stands
there.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from foci.attention.masks import MaskRule, hide
from foci.attention.scores import Block, Scores, grouped
from foci.attention.targets import Targets
from foci.focus import Pattern


def pattern_loss(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch group key dim"],
    pattern: Pattern | Targets,
    real: Bool[Tensor, "batch key"],
    visible: Bool[Tensor, "#batch #head #query key"] | Float[Tensor, "#batch #head #query key"] | None = None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
) -> Float[Tensor, ""]:
    """Sum over heads and queries that have a target of ||A_i - P_i||^2 (arXiv 2010.02399, eq. 2, by rows).

    `Targets.of(...)` in place of a pattern's name says where delimiters are.
    `visible` is what attention itself uses, True or 0 where a query may look, None for causal attention;
    `real[:, None, None]` is bidirectional attention. Query and key stand after rotary positions; a key head serves as
    many query heads, in order, as there are per key head. Once differentiable; memory is linear in the keys. At least
    float32. ValueError where the query heads cannot be shared out.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    targets = pattern if isinstance(pattern, Targets) else Targets.of(pattern, real)
    return loss_of(Scores(query, key, visible, scaling, softcap), targets)


def loss_of(scores: Scores, targets: Targets) -> Float[Tensor, ""]:
    """`pattern_loss` of scores that may have sinks too; those get a gradient like queries and keys."""
    heads, groups = scores.query.shape[1], scores.key.shape[1]
    if heads % groups:
        raise ValueError(
            f"a pattern loss needs as many query heads for each key head, got {heads} query heads and {groups} key "
            "heads; choose the same number of heads from every group"
        )
    dtype = torch.promote_types(scores.query.dtype, scores.key.dtype)
    rule = scores.visible if isinstance(scores.visible, MaskRule) else None
    mask = None if rule else scores.visible
    how = _How(rule, scores.scaling, scores.softcap, scores.causal, targets)
    loss: Tensor = _PatternLoss.apply(scores.query.to(dtype), scores.key.to(dtype), scores.sinks, mask, how)
    return loss


@dataclass(frozen=True)
class _How:
    """What has no gradient."""

    rule: MaskRule | None
    scaling: float
    softcap: float | None
    causal: bool
    targets: Targets

    def scores(self, query: Tensor, key: Tensor, sinks: Tensor | None, mask: Tensor | None) -> Scores:
        visible = mask if self.rule is None else self.rule
        return Scores(query, key, visible, self.scaling, self.softcap, sinks, self.causal)


class _PatternLoss(torch.autograd.Function):
    """The sum over the queries that count; the backward pass computes a block's probabilities again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, sinks: Tensor | None, mask: Tensor | None, how: _How) -> Tensor:
        ctx.how = how
        scores, targets = how.scores(query, key, sinks, mask), how.targets
        squares, hits = [], []
        with torch.autocast(query.device.type, enabled=False):
            for block in scores.blocks():
                p = scores.probabilities(block)
                squares.append(torch.linalg.vector_norm(p, dim=-1).square())
                hits.append(on_pattern(p, block, targets))
        square, hit = torch.cat(squares, 2), torch.cat(hits, 2)
        ctx.save_for_backward(query, key, sinks, mask, square, hit)
        return (square - 2 * hit + 1).masked_fill(~targets.counted[:, None], 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, sinks, mask, square, hit = ctx.saved_tensors
        how: _How = ctx.how
        scores = how.scores(query, key, sinks, mask)
        made = _Gradients.zeros(scores, square.dtype)
        factor = (2 * grad * how.targets.counted[:, None]).to(square.dtype).expand_as(square)
        with torch.autocast(query.device.type, enabled=False):
            for block in scores.blocks():
                rows = slice(block.start, block.stop)
                made.add(scores, block, how.targets, square[:, :, rows], hit[:, :, rows], factor[:, :, rows])
        own = None if made.sinks is None or sinks is None else made.sinks.to(sinks.dtype)
        return made.query, made.key.to(key.dtype), own, None, None


def on_pattern(
    p: Float[Tensor, "batch head query key"], block: Block, targets: Targets
) -> Float[Tensor, "batch head query"]:
    """sum_j P_ij A_ij of a block's queries, from their attention `p`."""
    if not p.shape[-1]:
        return p.new_zeros(p.shape[:3])
    at, inside = _within(block, targets.key, p.shape)
    return p.gather(-1, at).squeeze(-1) * inside


def _within(block: Block, target: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The targets of a block as indices into its keys, and which of them are among its keys."""
    at = target[:, None, block.start : block.stop] - block.low
    inside = (at >= 0) & (at < block.high - block.low)
    return at.clamp(0, max(0, block.high - block.low - 1))[..., None].expand(*shape[:3], 1), inside


@dataclass
class _Gradients:
    """Sums over blocks, at least float32."""

    query: Tensor
    key: Tensor
    sinks: Tensor | None

    @classmethod
    def zeros(cls, scores: Scores, dtype: torch.dtype) -> "_Gradients":
        sinks = None if scores.sinks is None else torch.zeros_like(scores.sinks, dtype=dtype)
        return cls(torch.zeros_like(scores.query), torch.zeros_like(scores.key, dtype=dtype), sinks)

    def add(self, scores: Scores, block: Block, targets: Targets, square: Tensor, hit: Tensor, factor: Tensor) -> None:
        """One block: the gradient of its scores, and from it those of its queries and keys."""
        if block.high == block.low:
            return
        capped = scores.capped(block)
        slope = None if scores.softcap is None else 1 - (capped / scores.softcap).square()
        p = scores.normalised(hide(capped, block.visible))
        if self.sinks is not None:
            self.sinks += (factor * (1 - p.sum(-1)) * (hit - square)).sum((0, 2))
        g = p + (hit - square)[..., None]
        g *= p
        at, inside = _within(block, targets.key, p.shape)
        g.scatter_add_(-1, at, -(hit * inside)[..., None])
        g *= (factor * scores.scaling)[..., None]
        if slope is not None:
            g *= slope
        g = g.to(scores.query.dtype)
        rows, keys = slice(block.start, block.stop), slice(block.low, block.high)
        self.query[:, :, rows] = grouped(g, scores.key[:, :, keys])
        self.key[:, :, keys] += _by_group(g, scores.query[:, :, rows], scores.key.shape[1])


def _by_group(g: Tensor, query: Tensor, groups: int) -> Tensor:
    """g^T q, summed over the heads of each group."""
    batch, heads, rows, keys = g.shape
    inner = heads // groups * rows
    return g.reshape(batch, groups, inner, keys).transpose(-1, -2) @ query.reshape(batch, groups, inner, -1)


def of_heads(scores: Scores, heads: list[int]) -> list[Scores]:
    """The scores of some heads, in as few parts as have equally many heads per key head; keys are not repeated."""
    size = scores.query.shape[1] // scores.key.shape[1]
    groups: dict[int, list[int]] = {}
    for head in sorted(heads):
        groups.setdefault(head // size, []).append(head)
    parts: dict[int, list[int]] = {}
    for group, members in groups.items():
        parts.setdefault(len(members), []).append(group)
    return [_part(scores, [head for group in part for head in groups[group]], part) for part in parts.values()]


def _part(scores: Scores, heads: list[int], groups: list[int]) -> Scores:
    visible = scores.visible
    if isinstance(visible, Tensor) and visible.shape[1] != 1:
        visible = visible[:, heads]
    return replace(
        scores,
        query=_taken(scores.query, heads, 1),
        key=_taken(scores.key, groups, 1),
        visible=visible,
        sinks=None if scores.sinks is None else _taken(scores.sinks, heads, 0),
    )


def _taken(tensor: Tensor, which: list[int], dim: int) -> Tensor:
    """Some heads; a view where they stand side by side."""
    if which == list(range(which[0], which[0] + len(which))):
        return tensor.narrow(dim, which[0], len(which))
    return tensor.index_select(dim, torch.tensor(which, device=tensor.device))
