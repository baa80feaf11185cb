"""Attention received by every corpus token, mapped to the learner's tokenizer.

Rows are read in batches of like length. A model with another tokenizer reads their text, and attention goes from its
tokens to the rows' through characters: a token's share is divided among its characters and added up over theirs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from foci import models
from foci.attention import check_watched, received
from foci.corpus import tokenizer_fingerprint
from foci.corpus.characters import gathered, retokenised, spread
from foci.focus import Row
from foci.models.forward import answering, buckets, device_of, pad_id, padded

BATCH, POSITIONS = 32, 4096
"""Rows, and positions with padding, of a forward pass at most (or one row)."""
SHORTEST = 0.8
"""The shortest row of a forward pass, at least, over its longest: so much of it is no padding."""


@dataclass(frozen=True)
class AttentionQuery:
    """Says which attention counts: of which queries, with or without the first token, and in which layers.

    `queries`: "following", a token's own and those after it; "later", those after it; "answers", of these the tokens
    that stand just before an answer. `without_first` leaves the first token of a row out of every map and divides by
    what remains. `layers` None = all.
    """

    queries: Literal["following", "later", "answers"] = "following"
    without_first: bool = False
    layers: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        """Returns the words that name this query in folders of kept attention."""
        return f"Look(queries={self.queries!r}, without_first={self.without_first!r}, layers={self.layers!r})"


def attention_received(
    loaded: models.Loaded, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, query: AttentionQuery
) -> list[tuple[float, ...]]:
    """Returns `foci.attention.received` of each token of each row, in order, computed in `loaded.compute_dtype`.

    With `queries` "answers", rows without an answer have 0 everywhere. Raises ValueError for a model whose attention
    cannot be watched, for a row that is too long for it, and for a row without text where the tokenizers differ.
    """
    model = loaded.model
    read = as_read(loaded, rows, tokenizer)
    _check_lengths(loaded, read)
    asked = [
        before_answers(row, theirs) if query.queries == "answers" else [0]
        for row, theirs in zip(rows, read, strict=True)
    ]
    found: list[list[float]] = [[0.0] * len(row) for row in read]
    some = [i for i, queries in enumerate(asked) if queries]
    check_watched(model)
    with answering(model, loaded.compute_dtype):
        for bucket in alike([len(read[i]) for i in some]):
            these = [some[n] for n in bucket]
            batch = padded([read[i] for i in these], pad_id(loaded.tokenizer), "right", device_of(model))
            queries = (
                query.queries if query.queries != "answers" else _marks([asked[i] for i in these], batch.input_ids)
            )
            share = received(
                model, batch.input_ids, batch.attention_mask, queries=queries, layers=query.layers,
                without_first=query.without_first,
            )  # fmt: skip
            for i, line in zip(these, share.tolist(), strict=True):
                found[i] = line[: len(read[i])]
    return [
        tuple(line) if theirs is ours else tuple(gathered(spread(line, theirs.offsets, ours.text), ours.offsets))
        for line, theirs, ours in zip(found, read, rows, strict=True)
    ]


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Puts rows, by their numbers, in batches of like length, longest first.

    >>> alike([10, 100, 8, 81, 79])
    [[1, 3], [4], [0, 2]]
    """
    parts: list[list[int]] = []
    for bucket in buckets(lengths, BATCH, POSITIONS):
        for at in bucket:
            if at == bucket[0] or lengths[at] < SHORTEST * lengths[parts[-1][0]]:
                parts.append([])
            parts[-1].append(at)
    return parts


def as_read(loaded: models.Loaded, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    """Returns the rows in the model's tokens: themselves where it has the tokenizer they were made with."""
    if tokenizer_fingerprint(loaded.tokenizer) == tokenizer_fingerprint(tokenizer):
        return list(rows)
    return [retokenised(row, loaded.tokenizer, f"model {loaded.name}") for row in rows]


def before_answers(ours: Row, theirs: Row) -> list[int]:
    """Returns the tokens of `theirs` just before each answer; answers are runs of `ours`' column `answer` above 0.

    `theirs` is the same text in the same or other tokens. An answer that begins at a first token has no query.
    """
    marks = ours.columns.get("answer", (0.0,) * len(ours))
    starts = [t for t, mark in enumerate(marks) if mark > 0 and (t == 0 or marks[t - 1] <= 0)]
    if theirs is ours:
        return [t - 1 for t in starts if t > 0]
    found = []
    for t in starts:
        inked = next((at for at in range(*ours.offsets[t]) if not ours.text[at].isspace()), ours.offsets[t][0])
        first = next((n for n, (a, b) in enumerate(theirs.offsets) if b > a and b > inked), 0)
        found += [first - 1] if first > 0 else []
    return found


def answers_key(rows: Sequence[Row]) -> str:
    """Returns 16 hex digits: the hash of the places of all answers."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.row_id} {before_answers(row, row)}\n".encode())
    return digest.hexdigest()[:16]


def _marks(asked: Sequence[Sequence[int]], like: Tensor) -> Bool[Tensor, "batch seq"]:
    marks = torch.zeros_like(like, dtype=torch.bool)
    for line, queries in zip(marks, asked, strict=True):
        line[list(queries)] = True
    return marks


def _check_lengths(loaded: models.Loaded, read: Sequence[Row]) -> None:
    longest = max(read, key=len)
    if len(longest) > loaded.max_length:
        raise ValueError(
            f"row {longest.row_id} has {len(longest)} tokens for model {loaded.name}, which reads at most "
            f"{loaded.max_length}; lower corpus.max_length"
        )
