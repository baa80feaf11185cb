"""How an update passes through the model: in less time, and in parts that fit in memory.

Our loss of an update is a sum over its tokens, each with a factor that is known before the first pass. So the gradients
of the parts add up to the update's gradient, however its rows are cut; only the rounding differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foci.models.forward import buckets

NARROWEST = 2
"""Positions of a part, at least: a token and the one that predicts it."""


@dataclass(frozen=True)
class Passes:
    """How the rows of an update pass through the model. Both say the same of the update but for rounding.

    `lean`: an adapter trains in less time and memory (`foci.models.lean`), and an empty plan has foci's loss instead of
    the Trainer's own. `tokens`: with foci's loss, the most positions of one pass; None: a micro-batch is one pass.
    """

    lean: bool = False
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"a pass takes at least 1 token, got tokens={self.tokens}; give more, or None for all")


WHOLE = Passes()
"""A micro-batch is one pass of the model as it is."""


def parts_of(inputs: Mapping[str, Any], most: int | None, *, trims: bool) -> list[dict[str, Any]]:
    """Returns a micro-batch in parts of at most `most` positions, padding counted, or of one row; None: of any number.

    Rows of like length share a part, and a part is no wider than its rows need. `inputs` has "weights" and perhaps
    "holds". `trims`: a row ends at its last token with a weight or a hold, since no token of a causal model reads
    those after it. A micro-batch that is padded on the left stays as wide as it is.
    """
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    width = mask.shape[1]
    wanted = mask if not trims else _any([inputs["weights"] > 0, *(hold > 0 for hold in inputs.get("holds", ()))])
    ends = _ends(wanted) if bool(mask[:, 0].all()) else torch.full((len(mask),), width)
    ends = ends.clamp(min=NARROWEST, max=width)
    lengths = ends.tolist()
    groups = buckets(lengths, len(lengths), most)
    if len(groups) == 1:
        groups = [list(range(len(lengths)))]  # in the order of the rows
    return [_part(inputs, rows, max(lengths[row] for row in rows)) for rows in groups]


def _any(masks: list[Tensor]) -> Tensor:
    found = masks[0]
    for mask in masks[1:]:
        found = found | mask
    return found


def _ends(mask: Tensor) -> Tensor:
    """Returns one past the last true place of each row; 0 of a row without one.

    >>> _ends(torch.tensor([[True, False, True, False], [False, False, False, False]])).tolist()
    [3, 0]
    """
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * places).amax(1)


def _part(inputs: Mapping[str, Any], rows: list[int], width: int) -> dict[str, Any]:
    """Returns the given rows of a micro-batch, cut behind `width` positions."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows, :width]
        if isinstance(value, Mapping):
            return {name: cut(one) for name, one in value.items()}
        return value

    part = {name: cut(value) for name, value in inputs.items()}
    if "row_ids" in inputs:
        part["row_ids"] = [inputs["row_ids"][row] for row in rows]
    if "holds" in inputs:
        part["holds"] = [cut(hold) for hold in inputs["holds"]]
    return part
