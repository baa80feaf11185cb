"""Rows that stand behind one another in long rows, so that little time goes into padding.

    with packed(512): loss = token_nll(model, batch).sum()

Only the model reads long rows: what is asked of a batch, and what is told of it, stays row by row. Positions begin at 0
with each row, by which Transformers keeps the rows of a long row apart, where it is given no mask and no cache.
`foci.models.packing` proves that a model does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Int
from torch import Tensor

Read = Callable[[Tensor, Tensor], Tensor]
"""Reads long rows: (ids, positions), both (long, width), to hidden states (long, width, hidden)."""

_WIDTH: ContextVar[int | None] = ContextVar("width of packed rows", default=None)


@contextmanager
def packed(width: int) -> Iterator[None]:
    """Makes models read rows in long rows of `width` tokens while open; ask `packing.why_not` before."""
    token = _WIDTH.set(width)
    try:
        yield
    finally:
        _WIDTH.reset(token)


Layout = list[list[int]]
"""Which rows stand in each long row, in their order."""


def layout_of(lengths: Sequence[int], width: int) -> Layout | None:
    """Returns as few and as even long rows of at most `width` tokens as are found; None where that saves no position.

    Each row, the longest first, is put where there is most room, before those that are there. None too where a row is
    longer than `width`.

    >>> layout_of([5, 3, 4, 2], width=7), layout_of([4, 4, 4], width=6)
    ([[3, 0], [1, 2]], None)
    """
    longest, total = max(lengths), sum(lengths)
    if longest > width:
        return None
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for count in range(-(-total // width), len(lengths)):
        made: Layout = [[] for _ in range(count)]
        taken = [0] * count
        for index in order:
            at = min(range(count), key=taken.__getitem__)
            made[at].append(index)
            taken[at] += lengths[index]
        if max(taken) <= width:
            made = [rows[::-1] for rows in made]
            return made if count * max(taken) < len(lengths) * longest else None
    return None


def positions_of(lengths: Sequence[int], width: int, apart: int) -> int:
    """Returns how many positions the model reads for rows of these lengths, padding counted; `apart`: side by side."""
    made = layout_of(lengths, width)
    return apart if made is None else len(made) * max(sum(lengths[row] for row in rows) for rows in made)


def layout_now(mask: Tensor) -> Layout | None:
    """Returns how the rows of a batch are read inside `packed`, padding on the right; None: apart."""
    width = _WIDTH.get()
    return None if width is None else layout_of(mask.sum(1).tolist(), width)


def read_packed(read: Read, ids: Int[Tensor, "batch seq"], mask: Tensor, layout: Layout) -> Tensor:
    """Returns the hidden states (batch, seq, hidden) of rows that `read` reads in long rows; 0 on padding.

    Padding stands on the right. What is left over in a long row is read as a row of its own.
    """
    real = mask.bool()
    lengths = real.sum(1).tolist()
    wide = max(sum(lengths[row] for row in rows) for rows in layout)
    starts, positions = [0] * len(lengths), []
    for number, rows in enumerate(layout):
        at = 0
        for row in rows:
            starts[row] = number * wide + at
            positions.append(torch.arange(lengths[row]))
            at += lengths[row]
        positions.append(torch.arange(wide - at))
    within = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    places = (torch.tensor(starts, device=ids.device)[:, None] + within)[real]
    long = ids[real][:1].repeat(len(layout) * wide)  # any token but the padding id, of which some models warn
    long[places] = ids[real]
    shape = (len(layout), wide)
    hidden = read(long.view(shape), torch.cat(positions).view(shape).to(ids.device))
    found = hidden.new_zeros(*ids.shape, hidden.shape[-1])
    found[real.to(hidden.device)] = hidden.flatten(0, 1)[places.to(hidden.device)]
    return found
