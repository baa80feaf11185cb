"""Attention masks as rules: rows of the mask are made when they are asked for, and only those."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers.masking_utils import sdpa_mask

LOW = torch.finfo(torch.float32).min / 4
"""What a hidden key's score becomes: finite, so that a query that sees nothing gives no NaN."""


@dataclass(frozen=True)
class MaskRule:
    """What Transformers would make a whole mask of; a model hands it from its mask interface to its attention.

    `arguments` are those of `transformers.masking_utils.sdpa_mask`: the rule of a pair (causal, sliding window, chunk,
    packed rows), the padding mask and the lengths.
    """

    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, **arguments: Any) -> "MaskRule":
        """To be registered with `AttentionMaskInterface`."""
        return cls(arguments)

    def rows(self, start: int, stop: int) -> Bool[Tensor, "batch one query key"]:
        """True where the queries from `start` to before `stop` may look."""
        changed = {
            "q_length": stop - start,
            "q_offset": self.arguments.get("q_offset", 0) + start,
            "allow_is_causal_skip": False,
            "allow_is_bidirectional_skip": False,
        }
        made: Tensor = sdpa_mask(**{**self.arguments, **changed})
        return made


def hide(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Scores with a mask applied in place: `visible` is False, or additive and very low, at keys that are hidden."""
    if visible is None:
        return scores
    if visible.dtype == torch.bool:
        return scores.masked_fill_(~visible, LOW)
    return scores.add_(visible.clamp(min=LOW))


def span(visible: Tensor) -> tuple[int, int]:
    """The first key that some query sees, and the one after the last; (0, 0) where none is seen.

    All keys on accelerators, where looking would make the host wait.
    """
    if visible.device.type != "cpu":
        return 0, visible.shape[-1]
    seen = visible if visible.dtype == torch.bool else visible > LOW
    keys = seen.flatten(0, -2).any(0).nonzero()
    return (int(keys[0]), int(keys[-1]) + 1) if len(keys) else (0, 0)
