"""The scores of one attention layer, a block of queries at a time: s = softcap(scaling q k) where a query may look.

Keys are never repeated for grouped queries: query head h of H reads key head h // (H / groups). With learned sinks
(gpt-oss) one more score per head, which belongs to no key, takes its share of the probability.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foci.attention.masks import MaskRule, hide, span

QUERIES_AT_A_TIME = 128
"""At most so many queries in a block (on an accelerator 8 times as many)."""
ELEMENTS_AT_A_TIME = 2**22
"""At most so many scores in a block of more than 16 queries (on an accelerator 8 times as many): 16 MiB in float32."""


@dataclass(frozen=True)
class Block:
    """The queries from `start` to before `stop`, and the keys from `low` to before `high`: no other key is seen.

    `visible` is the mask of these queries and keys, or None where every query sees every key.
    """

    start: int
    stop: int
    low: int
    high: int
    visible: Tensor | None


@dataclass(frozen=True)
class Scores:
    """What the scores of one attention layer are made of; queries and keys stand after rotary positions.

    `visible` is a rule, or what attention itself takes: True or 0 where a query may look. None means that a query sees
    itself and what stands before it, or with `causal=False` everything.
    """

    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch group key dim"]
    visible: MaskRule | Bool[Tensor, "#batch #head #query key"] | Float[Tensor, "#batch #head #query key"] | None
    scaling: float
    softcap: float | None = None
    sinks: Float[Tensor, " head"] | None = None
    causal: bool = True

    def blocks(self) -> Iterator[Block]:
        """All queries in order."""
        batch, heads, queries, _ = self.query.shape
        larger = 1 if self.query.device.type == "cpu" else 8
        fitting = larger * ELEMENTS_AT_A_TIME // max(1, batch * heads * self.key.shape[2])
        size = min(larger * QUERIES_AT_A_TIME, max(16, fitting))
        for start in range(0, queries, size):
            yield self._block(start, min(start + size, queries))

    def _block(self, start: int, stop: int) -> Block:
        keys = self.key.shape[2]
        if self.visible is None and not self.causal:
            return Block(start, stop, 0, keys, None)
        if self.visible is None:
            at = torch.arange(stop, device=self.query.device)
            return Block(start, stop, 0, stop, (at <= at[start:, None])[None, None])
        rows = self._rows(self.visible, start, stop)
        low, high = span(rows)
        return Block(start, stop, low, high, rows[..., low:high])

    def _rows(self, visible: MaskRule | Tensor, start: int, stop: int) -> Tensor:
        if isinstance(visible, MaskRule):
            return visible.rows(start, stop)
        return visible if visible.shape[2] == 1 else visible[:, :, start:stop]

    def capped(self, block: Block) -> Float[Tensor, "batch head query key"]:
        """Scores of a block before its mask, at least float32."""
        query = self.query[:, :, block.start : block.stop]
        key = self.key[:, :, block.low : block.high]
        if query.dtype.itemsize == 2:
            raw = grouped(query, key.transpose(-1, -2)).float().mul_(self.scaling)
        else:
            raw = grouped(query * self.scaling, key.transpose(-1, -2))
        return raw if self.softcap is None else raw.div_(self.softcap).tanh_().mul_(self.softcap)

    def probabilities(self, block: Block) -> Float[Tensor, "batch head query key"]:
        """What attention gives the keys of a block; rows sum to 1, less what a sink takes."""
        return self.normalised(hide(self.capped(block), block.visible))

    def normalised(self, scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """The softmax over keys and sink, the sink's share left out."""
        if self.sinks is None:
            return scores.softmax(-1)
        sink = self.sinks.to(scores.dtype)[None, :, None, None].expand(*scores.shape[:3], 1)
        return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]


def grouped(
    many: Float[Tensor, "batch head query inner"], few: Float[Tensor, "batch group inner width"]
) -> Float[Tensor, "batch head query width"]:
    """The matrix product of every head with that of its group."""
    batch, heads, queries, inner = many.shape
    groups = few.shape[1]
    product = many.reshape(batch, groups, heads // groups * queries, inner) @ few
    return product.view(batch, heads, queries, few.shape[-1])
