"""Reads texts that begin alike once: the LM head's input after each of some beginnings of texts.

    for indices, hidden in after(model, beginnings, pad): ...  # hidden[n]: after the end of beginnings[indices[n]]

Sorted beginnings stand in packed rows, in which a token that several of them share stands once:

    Bern is in | a town of | Basel is     the beginnings "Bern is", "Bern is in", "Bern is a town of" and "Basel is"

Each token attends to the tokens before it in its own text (a mask of four dimensions), and its position is that in its
own text. `shares_prefixes` proves once per model that this gives the logits of texts that are read apart; a model that
reads otherwise (recurrent layers, positions by place) gets every longest beginning as a row of its own.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.focus import Row
from foci.models.architecture import (
    UNLIMITED,
    base_of,
    equal_logits,
    evaluating,
    max_length,
    precision_of,
    sample_ids,
)
from foci.models.forward import TOKEN_BUDGET, buckets, device_of, padded
from foci.models.head import head_of
from foci.models.losses import captured_hidden, hidden_states
from foci.models.padding import neighbour_limits

WIDTH = 128
"""Tokens of a packed row. A wider one shares a little more and costs more attention: 256 took 8 % longer on a CPU."""

_SHARES: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
_REACH = re.compile(r"window|chunk|local_attention")
_NO_REACH = re.compile(r"layer|feed_forward")

Beginning = tuple[int, ...]
"""The first tokens of a text."""


@dataclass
class Pack:
    """One packed row: its tokens, their positions in their own texts, the places of the tokens before them (-1: none).

    `ends` has, by the index of a beginning, the place of its last token.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def add(self, token: int, path: Sequence[int]) -> int:
        """Adds a token after those at the places `path`; returns its place."""
        self.ids.append(token)
        self.positions.append(len(path))
        self.before.append(path[-1] if path else -1)
        return len(self.ids) - 1


def packed(beginnings: Sequence[Beginning], width: int) -> list[Pack]:
    """Returns packed rows of at most `width` tokens, in which the beginnings stand; a longer one has a row to itself.

    >>> [pack.ids for pack in packed([(7, 8, 9), (7, 8), (7, 5), (4,)], width=9)]
    [[4, 7, 5, 8, 9]]
    """
    packs: list[Pack] = []
    path: list[int] = []
    last: Beginning = ()
    for index in sorted(range(len(beginnings)), key=lambda i: beginnings[i]):
        ids = beginnings[index]
        same = next((n for n, (a, b) in enumerate(zip(last, ids, strict=False)) if a != b), min(len(last), len(ids)))
        if not packs or len(packs[-1].ids) + len(ids) - same > width:
            packs.append(Pack())
            same = 0
        del path[same:]
        for token in ids[same:]:
            path.append(packs[-1].add(token, path))
        packs[-1].ends[index] = path[-1]
        last = ids
    return packs


def after(
    model: nn.Module, beginnings: Sequence[Beginning], pad: int, batch_size: int = 32
) -> Iterator[tuple[list[int], Float[Tensor, "token hidden"]]]:
    """Yields, pass by pass, indices of beginnings and the LM head's input after the last token of each.

    Every beginning has a token and comes once. A pass reads about as many tokens as `batch_size` of the longest
    beginnings, at most `TOKEN_BUDGET` (or one row). Run it under `answering`.
    """
    if not beginnings:
        return
    longest = max(map(len, beginnings))
    reach = _reach(model)  # a layer may cut what it sees by places in the row (GPT-Neo), so rows are no wider
    width = min(max(WIDTH, 2 * longest), max_length(model), reach)  # type: ignore[arg-type]
    if longest <= reach and _fits(model, width) and shares_prefixes(model):
        yield from _together(model, beginnings, pad, width, min(batch_size * longest, TOKEN_BUDGET))
    else:
        yield from _apart(model, beginnings, pad, batch_size)


def _reach(model: nn.Module) -> int:
    """Returns to how many tokens every layer attends; `UNLIMITED` where the configuration says none."""
    settings = base_of(model).config.get_text_config().to_dict()  # type: ignore[arg-type]
    found = [
        value
        for name, value in settings.items()
        if _REACH.search(name) and not _NO_REACH.search(name) and type(value) is int and value > 0
    ]
    return min(found, default=UNLIMITED)


def _fits(model: nn.Module, width: int) -> bool:
    """Returns whether a model reads rows of `width` tokens as shorter ones."""
    return all(width <= limit for limit, *_ in neighbour_limits(model))


def _together(
    model: nn.Module, beginnings: Sequence[Beginning], pad: int, width: int, budget: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Reads packed rows, as many in a pass as `budget` tokens allow, with little padding."""
    batch: list[Pack] = []
    for pack in sorted(packed(beginnings, width), key=lambda pack: -len(pack.ids)):
        wide = len(batch[0].ids) if batch else 0
        if batch and ((len(batch) + 1) * wide > budget or len(pack.ids) < 0.8 * wide):
            yield _ends(batch), _read(model, batch, pad)
            batch = []
        batch.append(pack)
    yield _ends(batch), _read(model, batch, pad)


def _ends(packs: Sequence[Pack]) -> list[int]:
    return [index for pack in packs for index in pack.ends]


def _read(model: nn.Module, packs: Sequence[Pack], pad: int, padding: int = 0) -> Tensor:
    """Returns the LM head's input at the ends of all beginnings of some packed rows."""
    device, width = device_of(model), max(len(pack.ids) for pack in packs) + padding
    ids = torch.tensor([pack.ids + [pad] * (width - len(pack.ids)) for pack in packs], device=device)
    positions = torch.tensor([pack.positions + [0] * (width - len(pack.ids)) for pack in packs], device=device)
    sees = torch.stack([_sees(pack, width) for pack in packs])[:, None].to(device)
    kind = base_of(model).get_input_embeddings().weight.dtype  # type: ignore[arg-type, union-attr]
    mask = torch.zeros(sees.shape, dtype=kind, device=device).masked_fill(~sees, torch.finfo(kind).min)  # type: ignore[arg-type]
    with captured_hidden(model) as captured:
        model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    (hidden,) = captured
    at = [(n, place) for n, pack in enumerate(packs) for place in pack.ends.values()]
    rows, places = torch.tensor(at, device=hidden.device).T
    return hidden[rows, places]


def _sees(pack: Pack, width: int) -> Tensor:
    """Returns which token (row) of a packed row attends to which (column); padding attends to itself."""
    sees = torch.eye(width, dtype=torch.bool)
    for place, before in enumerate(pack.before):
        if before >= 0:
            sees[place] |= sees[before]
    return sees


def _apart(
    model: nn.Module, beginnings: Sequence[Beginning], pad: int, batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Reads each longest beginning in a row of its own; where a row's length changes how it is read, all of them."""
    longest = max(map(len, beginnings))
    alone = any(limit < longest for limit, *_ in neighbour_limits(model))
    order = sorted(range(len(beginnings)), key=lambda i: beginnings[i])
    owners: list[list[int]] = []  # of each row the beginnings that stand in it, the longest last
    for index in order:
        ids = beginnings[index]
        if alone or not owners or ids[: len(beginnings[owners[-1][-1]])] != beginnings[owners[-1][-1]]:
            owners.append([])
        owners[-1].append(index)
    rows = [Row(str(n), beginnings[own[-1]]) for n, own in enumerate(owners)]
    for bucket in buckets([len(row) for row in rows], batch_size):
        batch = padded([rows[n] for n in bucket], pad, "right", device_of(model))
        hidden = hidden_states(model, batch)
        at = [(n, len(beginnings[index]) - 1) for n, row in enumerate(bucket) for index in owners[row]]
        where = torch.tensor(at, device=hidden.device).T
        yield [index for row in bucket for index in owners[row]], hidden[where[0], where[1]]


def shares_prefixes(model: nn.Module) -> bool:
    """Returns whether packed rows give the logits of rows that are read apart. A model is asked once, with few tokens.

    Tolerance: 1e-4 of the largest logit, in half precision 2e-2.
    """
    base = base_of(model)  # type: ignore[arg-type]
    if base not in _SHARES:
        ids = sample_ids(base)
        with torch.no_grad(), evaluating(model), torch.autocast(ids.device.type, enabled=False):
            _SHARES[base] = _agrees(model, base, ids)
    return _SHARES[base]


def _agrees(model: nn.Module, base: PreTrainedModel, ids: Int[Tensor, "one seq"]) -> bool:
    texts = [tuple(ids[0, list(at)].tolist()) for at in ((0, 1, 2, 3, 4), (0, 1, 5, 6, 7, 2), (0, 1, 5, 3), (3, 0, 6))]
    beginnings = [text[:length] for text in texts for length in range(1, len(text) + 1)]
    packs = packed(list(dict.fromkeys(beginnings)), 2 * len(beginnings))
    known = list(dict.fromkeys(beginnings))
    try:
        hidden = _read(model, packs, texts[0][0], padding=3)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
        return False  # no such mask, or no such positions
    theirs = torch.empty_like(hidden)
    order = {index: n for n, index in enumerate(_ends(packs))}
    for indices, states in _apart(model, known, texts[0][0], 32):
        theirs[[order[index] for index in indices]] = states
    ours, theirs = (head_of(model).logits(states).float().nan_to_num() for states in (hidden, theirs))
    dtype: torch.dtype = base.get_input_embeddings().weight.dtype  # type: ignore[union-attr, assignment]
    return equal_logits(ours, theirs, precision_of(dtype))
