"""Attention logits of one layer, computed for one slice of queries at a time: s = softcap(scaling q k).

Keys are not repeated for grouped queries: query head h of H reads key head h // (H / groups). A learned sink (gpt-oss)
is one more logit per head that belongs to no key; it takes its share of the probability.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foci.attention.masks import MaskRule, hide, span

QUERIES_AT_A_TIME = 128
"""The most queries in a slice (on an accelerator 8 times as many)."""
ELEMENTS_AT_A_TIME = 2**22
"""The most logits in a slice of more than 16 queries (on an accelerator 8 times as many): 16 MiB in float32."""


@dataclass(frozen=True)
class QuerySlice:
    """The queries [start, stop) and the keys [low, high): these queries see no other key.

    `visible` is the mask of these queries and keys, or None where every query sees every key.
    """

    start: int
    stop: int
    low: int
    high: int
    visible: Tensor | None


@dataclass(frozen=True)
class Logits:
    """Everything that determines the logits of one attention layer; queries and keys stand after rotary positions.

    `visible` is a rule, or the mask that attention itself takes: True or 0 where a query may look. None means that a
    query sees itself and all keys before it, or with `causal=False` all keys.
    """

    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch group key dim"]
    visible: MaskRule | Bool[Tensor, "#batch #head #query key"] | Float[Tensor, "#batch #head #query key"] | None
    scaling: float
    softcap: float | None = None
    sinks: Float[Tensor, " head"] | None = None
    causal: bool = True

    def slices(self) -> Iterator[QuerySlice]:
        """Yields slices that together hold all queries, in order."""
        batch, heads, queries, _ = self.query.shape
        larger = 1 if self.query.device.type == "cpu" else 8
        fitting = larger * ELEMENTS_AT_A_TIME // max(1, batch * heads * self.key.shape[2])
        size = min(larger * QUERIES_AT_A_TIME, max(16, fitting))
        for start in range(0, queries, size):
            yield self._slice(start, min(start + size, queries))

    def _slice(self, start: int, stop: int) -> QuerySlice:
        keys = self.key.shape[2]
        if self.visible is None and not self.causal:
            return QuerySlice(start, stop, 0, keys, None)
        if self.visible is None:
            at = torch.arange(stop, device=self.query.device)
            return QuerySlice(start, stop, 0, stop, (at <= at[start:, None])[None, None])
        rows = self._rows(self.visible, start, stop)
        low, high = span(rows)
        return QuerySlice(start, stop, low, high, rows[..., low:high])

    def _rows(self, visible: MaskRule | Tensor, start: int, stop: int) -> Tensor:
        if isinstance(visible, MaskRule):
            return visible.rows(start, stop)
        return visible if visible.shape[2] == 1 else visible[:, :, start:stop]

    def capped(self, part: QuerySlice) -> Float[Tensor, "batch head query key"]:
        """Returns the logits of a slice before its mask is applied, at least float32."""
        query = self.query[:, :, part.start : part.stop]
        key = self.key[:, :, part.low : part.high]
        if query.dtype.itemsize == 2:
            raw = grouped(query, key.transpose(-1, -2)).float().mul_(self.scaling)
        else:
            raw = grouped(query * self.scaling, key.transpose(-1, -2))
        return raw if self.softcap is None else raw.div_(self.softcap).tanh_().mul_(self.softcap)

    def probabilities(self, part: QuerySlice) -> Float[Tensor, "batch head query key"]:
        """Returns the attention probabilities of a slice; each row sums to 1 minus the sink's share."""
        return self.normalised(hide(self.capped(part), part.visible))

    def normalised(self, logits: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Returns the softmax over the keys and the sink, without the sink's column."""
        if self.sinks is None:
            return logits.softmax(-1)
        sink = self.sinks.to(logits.dtype)[None, :, None, None].expand(*logits.shape[:3], 1)
        return torch.cat([logits, sink], -1).softmax(-1)[..., :-1]


def grouped(
    many: Float[Tensor, "batch head query inner"], few: Float[Tensor, "batch group inner width"]
) -> Float[Tensor, "batch head query width"]:
    """Multiplies the matrix of each query head with the matrix of its key group."""
    batch, heads, queries, inner = many.shape
    groups = few.shape[1]
    product = many.reshape(batch, groups, heads // groups * queries, inner) @ few
    return product.view(batch, heads, queries, few.shape[-1])
