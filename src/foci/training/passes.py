"""How an update passes through the model: in less time, and in parts that fit in memory.

Our loss of an update is a sum over its tokens, each with a factor that is known before the first pass. So the gradients
of the parts add up to the update's gradient, however its rows are cut; only the rounding differs.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from foci.focus import GuidesHeads
from foci.models.forward import buckets
from foci.models.lean import Lean
from foci.models.long_rows import layout_of, packed, positions_of
from foci.models.packing import LEAST, why_not

NARROWEST = 2
"""Positions of a part, at least: a token and the one that predicts it."""


@dataclass(frozen=True)
class Passes:
    """How the rows of an update pass through the model. All say the same of the update but for rounding.

    `lean`: an adapter trains in less time and memory (`foci.models.lean`). `tokens`: the most positions of one pass;
    None: a micro-batch is one pass. `packs`: rows stand behind one another in long rows of at most so many tokens, and
    of at most `tokens` (`foci.models.long_rows`), where a batch has no longer row and the model keeps them apart; None:
    side by side. With
    `lean` or `packs` an empty plan has foci's loss instead of the Trainer's own; `tokens` is about foci's loss alone.
    """

    lean: bool = False
    tokens: int | None = None
    packs: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"a pass takes at least 1 token, got tokens={self.tokens}; give more, or None for all")
        if self.packs is not None and self.packs < LEAST:
            raise ValueError(
                f"a long row takes at least {LEAST} tokens, got packs={self.packs}; give more, or None for rows apart"
            )

    @property
    def long_row(self) -> int | None:
        """Tokens of a long row, at most; None where rows stand side by side, or a pass takes too few tokens for two."""
        if self.packs is None:
            return None
        most = self.packs if self.tokens is None else min(self.packs, self.tokens)
        return most if most >= LEAST else None

    @property
    def replaces_loss(self) -> bool:
        """Whether an empty plan has foci's loss."""
        return self.lean or self.packs is not None

    def checked(self, model: nn.Module) -> "Passes":
        """Returns how this model can be read: a model that does not keep packed rows apart is not given any.

        Warns in that case.
        """
        reason = self.why_apart(model)
        if reason is None:
            return self
        warnings.warn(f"rows are not packed: {reason}", stacklevel=2)
        return replace(self, packs=None)

    def why_apart(self, model: nn.Module, longest: int = 0) -> str | None:
        """Returns why rows of up to `longest` tokens that should be packed are not; None where nothing prevents it."""
        if self.packs is None:
            return None
        if self.long_row is None or self.long_row < longest:
            rows = f"the longest row has {longest}" if longest else f"a long row takes at least {LEAST}"
            return f"a pass takes at most {self.tokens} tokens, and {rows}"
        return why_not(model, self.long_row, self.tokens)

    def around(self, model: nn.Module, dtype: torch.dtype) -> "Callable[[], AbstractContextManager[None]]":
        """Returns what is opened around each pass of training; `dtype` is computed in."""
        lean = Lean.of(model, dtype) if self.lean else None
        return partial(_both, nullcontext if lean is None else lean.on, self.long_row)


@contextmanager
def _both(lean: Callable[[], AbstractContextManager[None]], packs: int | None) -> Iterator[None]:
    with lean(), nullcontext() if packs is None else packed(packs):
        yield


WHOLE = Passes()
"""A micro-batch is one pass of the model as it is."""


@runtime_checkable
class NeedsRowsApart(Protocol):
    """A method that is still to be prepared, and will need each row to be read in a row of its own."""

    def needs_rows_apart(self) -> bool:
        """Says whether it does, with its settings."""
        ...


def check_packs(methods: Sequence[object], packs: int | None) -> None:
    """Refuses methods that need each row in a row of its own, where rows are to stand in long ones of `packs` tokens.

    These are methods that guide heads, or say so themselves (`NeedsRowsApart`).
    """
    for method in methods if packs is not None else ():
        if isinstance(method, GuidesHeads) or (isinstance(method, NeedsRowsApart) and method.needs_rows_apart()):
            raise ValueError(
                f"{method!r} guides attention by the places of a row, so each row must be read by itself, but they are "
                f"to be packed into long rows of {packs} tokens; leave packing out (train.packing: false in a run "
                "file), or drop this method"
            )


def parts_of(inputs: Mapping[str, Any], passes: Passes, *, trims: bool) -> list[dict[str, Any]]:
    """Returns a micro-batch in parts of at most `passes.tokens` positions, padding counted, or of one row.

    Rows of like length, or of one long row, share a part, and a part is no wider than its rows need. `inputs` has
    "weights" and perhaps "holds"; "positions" is added, how many the model reads. `trims`: a row ends at its last token
    with a weight or a hold, since no token of a causal model reads those after it. A micro-batch that is padded on the
    left stays as wide as it is.
    """
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    width = mask.shape[1]
    wanted = mask if not trims else _any([inputs["weights"] > 0, *(hold > 0 for hold in inputs.get("holds", ()))])
    ends = _ends(wanted) if bool(mask[:, 0].all()) else torch.full((len(mask),), width)
    ends = ends.clamp(min=NARROWEST, max=width)
    wide = ends.tolist()
    if passes.long_row is None:
        groups = buckets(wide, len(wide), passes.tokens)
    else:
        places = torch.arange(width, device=mask.device)
        inputs = {**inputs, "attention_mask": (mask & (places < ends.to(mask.device)[:, None])).long()}
        groups = _packed_groups(inputs["attention_mask"].sum(1).tolist(), wide, passes.long_row, passes.tokens)
    if len(groups) == 1:
        groups = [list(range(len(wide)))]  # in the order of the rows
    return [_part(inputs, rows, max(wide[row] for row in rows), passes.long_row) for rows in groups]


def _packed_groups(lengths: list[int], wide: list[int], packs: int, most: int | None) -> list[list[int]]:
    """Returns which rows pass together: as many long rows as fit; where rows are read apart, those of like width."""
    made = layout_of(lengths, packs)
    if made is None:
        return buckets(wide, len(wide), most)
    longest = max(sum(lengths[row] for row in rows) for rows in made)
    count = len(made) if most is None else max(1, most // longest)
    groups = [made[at : at + count] for at in range(0, len(made), count)]
    found = [[[row for rows in some for row in rows]] for some in groups]
    for n, ((rows,), some) in enumerate(zip(found, groups, strict=True)):
        if most is not None and positions_of([lengths[row] for row in rows], packs, most + 1) > most:
            found[n] = some  # another layout is found for these rows by themselves
    return [rows for parts in found for rows in parts]


def filled(parts: list[dict[str, Any]], count: int, filler: str) -> list[dict[str, Any]]:
    """Returns `count` parts: those given and, for the rest, parts of two positions that add nothing.

    `filler` is the id of a row that counts for nothing.
    """
    if len(parts) >= count:
        return parts
    empty = _part(parts[0], [0], NARROWEST, None)
    seen = torch.ones_like(empty["input_ids"])  # the first row may begin with padding
    nothing = {"weights": torch.zeros_like(empty["weights"]), "row_ids": [filler], "attention_mask": seen}
    if "holds" in empty:
        nothing["holds"] = [torch.zeros_like(hold) for hold in empty["holds"]]
    return parts + [{**empty, **nothing} for _ in range(count - len(parts))]


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


def _part(inputs: Mapping[str, Any], rows: list[int], width: int, packs: int | None) -> dict[str, Any]:
    """Returns the given rows of a micro-batch, cut behind `width` positions, and how many positions are read."""

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
    part["positions"] = part["input_ids"].numel()
    if packs is not None:
        part["positions"] = positions_of(part["attention_mask"].sum(1).tolist(), packs, part["positions"])
    return part
