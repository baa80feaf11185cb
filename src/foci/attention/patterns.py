"""Distance of attention heads from simple patterns, with an analytic gradient and without a (query, key) map.

For a query i with target key t, attention A_i = softmax(s_i) and the pattern P_i = one-hot(t):

    ||A_i - P_i||^2  =  exp(LSE(2 s_i) - 2 LSE(s_i)) - 2 exp(s_i,t - LSE(s_i)) + 1  =  e_i - 2 p_i + 1

with e_i = sum_j A_ij^2 and p_i = A_it, so one slice of queries at a time is enough. The gradient is

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

from foci.attention.logits import Logits, QuerySlice, grouped
from foci.attention.masks import MaskRule, hide
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
    """Returns the sum of ||A_i - P_i||^2 over heads and over queries with a target (arXiv 2010.02399, eq. 2, by rows).

    Pass `Targets.of(...)` in place of a pattern's name to say where delimiters are.
    `visible` is what attention itself uses, True or 0 where a query may look, None for causal attention;
    `real[:, None, None]` is bidirectional attention. Query and key stand after rotary positions; a key head serves as
    many query heads, in order, as there are per key head. Once differentiable; memory is linear in the keys; computed
    in at least float32. Raises ValueError where the number of query heads is no multiple of that of key heads.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    targets = pattern if isinstance(pattern, Targets) else Targets.of(pattern, real)
    return loss_of(Logits(query, key, visible, scaling, softcap), targets)


def loss_of(logits: Logits, targets: Targets) -> Float[Tensor, ""]:
    """Returns `pattern_loss` of logits that may have sinks; sinks get a gradient, as queries and keys do."""
    heads, groups = logits.query.shape[1], logits.key.shape[1]
    if heads % groups:
        raise ValueError(
            f"a pattern loss needs as many query heads for each key head, got {heads} query heads and {groups} key "
            "heads; choose the same number of heads from every group"
        )
    dtype = torch.promote_types(logits.query.dtype, logits.key.dtype)
    rule = logits.visible if isinstance(logits.visible, MaskRule) else None
    mask = None if rule else logits.visible
    how = _How(rule, logits.scaling, logits.softcap, logits.causal, targets)
    loss: Tensor = _PatternLoss.apply(logits.query.to(dtype), logits.key.to(dtype), logits.sinks, mask, how)
    return loss


@dataclass(frozen=True)
class _How:
    """The settings of a layer's logits that have no gradient."""

    rule: MaskRule | None
    scaling: float
    softcap: float | None
    causal: bool
    targets: Targets

    def logits(self, query: Tensor, key: Tensor, sinks: Tensor | None, mask: Tensor | None) -> Logits:
        visible = mask if self.rule is None else self.rule
        return Logits(query, key, visible, self.scaling, self.softcap, sinks, self.causal)


class _PatternLoss(torch.autograd.Function):
    """Sums over the queries that count; the backward pass computes the probabilities of each slice again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, sinks: Tensor | None, mask: Tensor | None, how: _How) -> Tensor:
        ctx.how = how
        logits, targets = how.logits(query, key, sinks, mask), how.targets
        squares, hits = [], []
        with torch.autocast(query.device.type, enabled=False):
            for part in logits.slices():
                p = logits.probabilities(part)
                squares.append(torch.linalg.vector_norm(p, dim=-1).square())
                hits.append(on_pattern(p, part, targets))
        square, hit = torch.cat(squares, 2), torch.cat(hits, 2)
        ctx.save_for_backward(query, key, sinks, mask, square, hit)
        return (square - 2 * hit + 1).masked_fill(~targets.counted[:, None], 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, sinks, mask, square, hit = ctx.saved_tensors
        how: _How = ctx.how
        logits = how.logits(query, key, sinks, mask)
        made = _Gradients.zeros(logits, square.dtype)
        factor = (2 * grad * how.targets.counted[:, None]).to(square.dtype).expand_as(square)
        with torch.autocast(query.device.type, enabled=False):
            for part in logits.slices():
                rows = slice(part.start, part.stop)
                made.add(logits, part, how.targets, square[:, :, rows], hit[:, :, rows], factor[:, :, rows])
        own = None if made.sinks is None or sinks is None else made.sinks.to(sinks.dtype)
        return made.query, made.key.to(key.dtype), own, None, None


def on_pattern(
    p: Float[Tensor, "batch head query key"], part: QuerySlice, targets: Targets
) -> Float[Tensor, "batch head query"]:
    """Returns sum_j P_ij A_ij for the queries of a slice, from their attention `p`."""
    if not p.shape[-1]:
        return p.new_zeros(p.shape[:3])
    at, inside = _within(part, targets.key, p.shape)
    return p.gather(-1, at).squeeze(-1) * inside


def _within(part: QuerySlice, target: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Returns the targets of a slice as indices into its keys, and which of them are among its keys."""
    at = target[:, None, part.start : part.stop] - part.low
    inside = (at >= 0) & (at < part.high - part.low)
    return at.clamp(0, max(0, part.high - part.low - 1))[..., None].expand(*shape[:3], 1), inside


@dataclass
class _Gradients:
    """Gradients, summed over slices in at least float32."""

    query: Tensor
    key: Tensor
    sinks: Tensor | None

    @classmethod
    def zeros(cls, logits: Logits, dtype: torch.dtype) -> "_Gradients":
        sinks = None if logits.sinks is None else torch.zeros_like(logits.sinks, dtype=dtype)
        return cls(torch.zeros_like(logits.query), torch.zeros_like(logits.key, dtype=dtype), sinks)

    def add(
        self, logits: Logits, part: QuerySlice, targets: Targets, square: Tensor, hit: Tensor, factor: Tensor
    ) -> None:
        """Adds one slice: the gradient of its logits, and from it those of its queries and keys."""
        if part.high == part.low:
            return
        capped = logits.capped(part)
        slope = None if logits.softcap is None else 1 - (capped / logits.softcap).square()
        p = logits.normalised(hide(capped, part.visible))
        if self.sinks is not None:
            self.sinks += (factor * (1 - p.sum(-1)) * (hit - square)).sum((0, 2))
        g = p + (hit - square)[..., None]
        g *= p
        at, inside = _within(part, targets.key, p.shape)
        g.scatter_add_(-1, at, -(hit * inside)[..., None])
        g *= (factor * logits.scaling)[..., None]
        if slope is not None:
            g *= slope
        g = g.to(logits.query.dtype)
        rows, keys = slice(part.start, part.stop), slice(part.low, part.high)
        self.query[:, :, rows] = grouped(g, logits.key[:, :, keys])
        self.key[:, :, keys] += _by_group(g, logits.query[:, :, rows], logits.key.shape[1])


def _by_group(g: Tensor, query: Tensor, groups: int) -> Tensor:
    """Returns g^T q, summed over the heads of each group."""
    batch, heads, rows, keys = g.shape
    inner = heads // groups * rows
    return g.reshape(batch, groups, inner, keys).transpose(-1, -2) @ query.reshape(batch, groups, inner, -1)


def of_heads(logits: Logits, heads: list[int]) -> list[Logits]:
    """Selects heads and groups them so that each part has equally many heads per key head; keys are not repeated."""
    size = logits.query.shape[1] // logits.key.shape[1]
    groups: dict[int, list[int]] = {}
    for head in sorted(heads):
        groups.setdefault(head // size, []).append(head)
    parts: dict[int, list[int]] = {}
    for group, members in groups.items():
        parts.setdefault(len(members), []).append(group)
    return [_part(logits, [head for group in part for head in groups[group]], part) for part in parts.values()]


def _part(logits: Logits, heads: list[int], groups: list[int]) -> Logits:
    visible = logits.visible
    if isinstance(visible, Tensor) and visible.shape[1] != 1:
        visible = visible[:, heads]
    return replace(
        logits,
        query=_taken(logits.query, heads, 1),
        key=_taken(logits.key, groups, 1),
        visible=visible,
        sinks=None if logits.sinks is None else _taken(logits.sinks, heads, 0),
    )


def _taken(tensor: Tensor, which: list[int], dim: int) -> Tensor:
    """Returns the entries `which` of a dimension; a view where they stand side by side."""
    if which == list(range(which[0], which[0] + len(which))):
        return tensor.narrow(dim, which[0], len(which))
    return tensor.index_select(dim, torch.tensor(which, device=tensor.device))
