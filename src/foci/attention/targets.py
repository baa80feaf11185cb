"""What every query of a batch is asked to look at: patterns as tensors (arXiv 2010.02399, section 3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foci.focus import Pattern

AHEAD: frozenset[Pattern] = frozenset({"next", "delimiters"})
"""Patterns that a causal model cannot meet."""
_SHIFTS: dict[Pattern, int] = {"same": 0, "previous": -1, "previous-2": -2, "next": 1}


def pattern_targets(
    pattern: Pattern, real: Bool[Tensor, "batch key"], delimiters: Bool[Tensor, "batch key"] | None = None
) -> tuple[Int[Tensor, "batch key"], Bool[Tensor, "batch key"]]:
    """The key each query should look at, and whether there is one. `real` is False on padding.

    "delimiters" has several: the first of them stands for all. ValueError where a pattern needs `delimiters`.
    """
    seq = real.shape[1]
    at = torch.arange(seq, device=real.device).expand_as(real)
    if pattern == "first":
        return real.int().argmax(1, keepdim=True).expand_as(at), real
    if pattern == "delimiters":
        there = real & _given(pattern, delimiters)
        return there.int().argmax(1, keepdim=True).expand_as(at), real & there.any(1, keepdim=True)
    if pattern == "delimiter":
        last = torch.where(real & _given(pattern, delimiters), at, -1).cummax(1).values
        return last.clamp(min=0), real & (last >= 0)
    target = at + _SHIFTS[pattern]
    inside = (target >= 0) & (target < seq)
    target = target.clamp(0, seq - 1)
    return target, real & inside & real.gather(1, target)


def _given(pattern: Pattern, delimiters: Tensor | None) -> Tensor:
    if delimiters is None:
        raise ValueError(f"the pattern {pattern!r} looks at delimiters, got none; say which tokens are delimiters")
    return delimiters


@dataclass(frozen=True)
class Targets:
    """The rows P_i of a pattern. `counted` are the queries whose distance counts.

    `key` is the one key of each query, -1 for none: P_i is then all zero, and the distance ||A_i||^2, which pulls
    toward uniform attention. With `among` every query of a row has the same P_i instead, spread over these keys alike.
    """

    key: Int[Tensor, "batch query"]
    counted: Bool[Tensor, "batch query"]
    among: Bool[Tensor, "batch query"] | None = None

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        real: Bool[Tensor, "batch key"],
        delimiters: Bool[Tensor, "batch key"] | None = None,
        *,
        asks_all: bool = False,
    ) -> "Targets":
        """A pattern's targets. `asks_all` counts queries to which it gives no key too; padding never counts."""
        key, has = pattern_targets(pattern, real, delimiters)
        counted = real if asks_all else has
        if pattern == "delimiters":
            return cls(torch.full_like(key, -1), counted, real & _given(pattern, delimiters))
        return cls(key.masked_fill(~has, -1), counted)

    def spread(self, dtype: torch.dtype) -> Float[Tensor, "batch key"] | None:
        """The weight of every key where P_i is spread."""
        if self.among is None:
            return None
        return self.among.to(dtype) / self.among.sum(-1, keepdim=True).clamp(min=1)

    def norm(self, dtype: torch.dtype) -> Float[Tensor, "batch query"]:
        """||P_i||^2."""
        spread = self.spread(dtype)
        if spread is None:
            return (self.key >= 0).to(dtype)
        return spread.square().sum(-1, keepdim=True).expand(self.key.shape)
