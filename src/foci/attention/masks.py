"""Attention masks as rules: only the rows of the mask that are asked for are computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers.masking_utils import sdpa_mask

LOW = torch.finfo(torch.float32).min / 4
"""The logit of a hidden key. It is finite, so that a query that sees no key does not give NaN."""


@dataclass(frozen=True)
class MaskRule:
    """The arguments from which Transformers would build a whole mask; the model passes it on to its attention.

    `arguments` are those of `transformers.masking_utils.sdpa_mask`: the rule of a pair (causal, sliding window, chunk,
    packed rows), the padding mask and the lengths.
    """

    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, **arguments: Any) -> "MaskRule":
        """Creates a rule; register this function with `AttentionMaskInterface`."""
        return cls(arguments)

    def rows(self, start: int, stop: int) -> Bool[Tensor, "batch one query key"]:
        """Returns True where the queries [start, stop) may look."""
        changed = {
            "q_length": stop - start,
            "q_offset": self.arguments.get("q_offset", 0) + start,
            "allow_is_causal_skip": False,
            "allow_is_bidirectional_skip": False,
        }
        made: Tensor = sdpa_mask(**{**self.arguments, **changed})
        return made


def hide(logits: Tensor, visible: Tensor | None) -> Tensor:
    """Applies a mask to logits in place: `visible` is False, or additive and very low, at keys that are hidden."""
    if visible is None:
        return logits
    if visible.dtype == torch.bool:
        return logits.masked_fill_(~visible, LOW)
    return logits.add_(visible.clamp(min=LOW))


def span(visible: Tensor) -> tuple[int, int]:
    """Returns the range [first, last + 1) of keys that some query sees; (0, 0) where no key is seen.

    On accelerators it returns all keys, because reading the mask would make the host wait.
    """
    if visible.device.type != "cpu":
        return 0, visible.shape[-1]
    seen = visible if visible.dtype == torch.bool else visible > LOW
    keys = seen.flatten(0, -2).any(0).nonzero()
    return (int(keys[0]), int(keys[-1]) + 1) if len(keys) else (0, 0)
