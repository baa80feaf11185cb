"""Patterns as tensors: the key that each query of a batch should look at (arXiv 2010.02399, section 3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from foci.focus import Pattern

AHEAD: frozenset[Pattern] = frozenset({"next"})
"""Patterns with keys after the query, which a causal model cannot see."""
_SHIFTS: dict[Pattern, int] = {"same": 0, "previous": -1, "previous-2": -2, "next": 1}


def pattern_targets(
    pattern: Pattern, real: Bool[Tensor, "batch key"], delimiters: Bool[Tensor, "batch key"] | None = None
) -> tuple[Int[Tensor, "batch key"], Bool[Tensor, "batch key"]]:
    """Returns the key that each query should look at, and whether there is one. `real` is False on padding.

    Raises ValueError where a pattern needs `delimiters` and got none.
    """
    seq = real.shape[1]
    at = torch.arange(seq, device=real.device).expand_as(real)
    if pattern == "first":
        return real.int().argmax(1, keepdim=True).expand_as(at), real
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
    """The key that a pattern asks each query for; -1 for a query without one, which does not count."""

    key: Int[Tensor, "batch query"]

    @classmethod
    def of(
        cls, pattern: Pattern, real: Bool[Tensor, "batch key"], delimiters: Bool[Tensor, "batch key"] | None = None
    ) -> "Targets":
        """Creates a pattern's targets in a batch. Raises ValueError where it needs `delimiters` and got none."""
        key, has = pattern_targets(pattern, real, delimiters)
        return cls(key.masked_fill(~has, -1))

    @property
    def counted(self) -> Bool[Tensor, "batch query"]:
        """The queries whose distance counts."""
        return self.key >= 0
