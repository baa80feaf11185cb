"""Measures the premise of arXiv 2409.17954: a model looks at the name when it is about to say a fact.

The attention from the token before an answer to the tokens of the names before it, added up; layers and heads
averaged. A row's first token, where idle heads look, is never among them, even where a name begins with it. The corpus
says where names are: its `name_spans` are the column "name", its `answer_spans` the column "answer", and where
`answer_groups` names the field of each answer, "answer:FIELD" (`foci.corpus.read_corpus`).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from foci import models
from foci.attention import check_watched, pair_attention
from foci.corpus.split import Span, tighten
from foci.focus import Row
from foci.methods.contrast.corpus_attention import AttentionQuery, as_read
from foci.models.forward import answering, buckets, device_of, pad_id, padded
from foci.probes.intervals import interval
from foci.probes.scoring import marks

ROWS = 128
"""The number of rows that are measured, at most: the first ones with known names and answers."""
BATCH, POSITIONS = 16, 2048


@dataclass(frozen=True)
class Clue:
    """One answer of a row in a model's tokens: the query before it and the name's tokens before that."""

    row: int
    group: str
    name: str
    query: int
    keys: tuple[int, ...]


@dataclass(frozen=True)
class Marked:
    """The characters of a row's names, and each answer's first character with its field."""

    names: tuple[Span, ...]
    answers: tuple[tuple[int, str], ...]


def premise(
    loaded: models.Loaded, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, query: AttentionQuery
) -> list[dict[str, str | int | float | None]]:
    """Returns one line per field: model, group, tokens between name and query, attention with a 95 % interval, names.

    `mean` is over names, each the mean of its rows, which are no independent measurements; Student's t. Empty where no
    line of the corpus tells where names and answers are.
    """
    annotated = list(islice(_annotated(rows), ROWS))
    if not annotated:
        return []
    read = as_read(loaded, [row for row, _ in annotated], tokenizer)
    clues = [
        clue
        for n, (row, (_, marked)) in enumerate(zip(read, annotated, strict=True))
        for clue in _clues(n, row, marked)
    ]
    shares = _shares(loaded, read, clues, query)
    groups = list(dict.fromkeys(clue.group for clue in clues))
    return [
        _summary(_named(loaded, query), group, [(c, s) for c, s in zip(clues, shares, strict=True) if c.group == group])
        for group in groups
    ]


def kinds(rows: Sequence[Row]) -> list[tuple[str, ...] | None]:
    """Says of every token whether it is of "names", of "answers" or of "others"; None for rows without known names."""
    known = {row.row_id: marked.names for row, marked in _annotated(rows)}
    found: list[tuple[str, ...] | None] = []
    for row in rows:
        answers, names = row.columns.get("answer", (0,) * len(row)), known.get(row.row_id, ())
        kind = ("answers" if answer else "others" for answer in answers)
        of = ("names" if is_name else other for is_name, other in zip(_in_names(row, names), kind, strict=True))
        found.append(tuple(of) if names else None)
    return found


def dropped(
    of: Sequence[tuple[str, ...] | None], chances: Sequence[Sequence[float] | np.ndarray]
) -> tuple[tuple[str, float], ...]:
    """Returns the mean chance to be dropped of each of `kinds`, over the rows that have them; empty where none has."""
    found: dict[str, list[float]] = {"names": [], "answers": [], "others": []}
    for row, chance in zip(of, chances, strict=True):
        for kind, share in zip(row or (), chance if row else (), strict=True):
            found[kind].append(float(share))
    return tuple((kind, round(sum(some) / len(some), 4)) for kind, some in found.items() if some)


def _named(loaded: models.Loaded, query: AttentionQuery) -> str:
    layers = "" if query.layers is None else f", layers {_listed(query.layers)}"
    return f"{loaded.name}{', without the first token' if query.without_first else ''}{layers}"


def _listed(numbers: Sequence[int]) -> str:
    """Writes numbers in order, neighbours as a range.

    >>> _listed([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _annotated(rows: Sequence[Row]) -> Iterator[tuple[Row, Marked]]:
    """Yields the rows whose names and answers the corpus marks, with these."""
    for row in rows:
        fields = {name.partition(":")[2]: name for name in row.columns if name.startswith("answer:")}
        if "name" not in row.columns or "answer" not in row.columns:
            continue
        if fields:
            found = [(start, field) for field, name in fields.items() for start, _ in _spans(row, name)]
        else:
            found = [(start, f"answer {n}") for n, (start, _) in enumerate(_spans(row, "answer"), 1)]
        yield row, Marked(_spans(row, "name"), tuple(sorted(found)))


def _spans(row: Row, column: str) -> tuple[Span, ...]:
    """Returns the characters of every stretch of tokens with 1 in a column, without white space at the edges."""
    runs = groupby(range(len(row)), key=lambda t: row.columns[column][t] > 0)
    places = [[row.offsets[t] for t in run] for marked, run in runs if marked]
    tight = (tighten(row.text, (some[0][0], some[-1][1])) for some in places)
    return tuple(span for span in tight if span)


def _clues(number: int, row: Row, marked: Marked) -> list[Clue]:
    found, in_names = [], _in_names(row, marked.names)
    for start, group in marked.answers:
        first = next((t for t, (a, b) in enumerate(row.offsets) if b > a and b > start), 0)
        keys = [t for t in range(1, first - 1) if in_names[t]]
        if keys:
            a, b = marked.names[0]
            found.append(Clue(number, str(group), row.text[a:b], first - 1, tuple(keys)))
    return found


def _in_names(row: Row, names: Sequence[Span]) -> list[bool]:
    """Says of every token whether it spells a character of a name that is not white space."""
    every = [marks(row.text, span, row.offsets) for span in names]
    return [any(found) for found in zip(*every, strict=True)] if every else [False] * len(row)


def _shares(loaded: models.Loaded, read: Sequence[Row], clues: Sequence[Clue], query: AttentionQuery) -> list[float]:
    """Returns for each clue the attention from its query to all its keys, the mean of layers and heads."""
    model, found = loaded.model, [0.0] * len(clues)
    of_row: dict[int, list[int]] = defaultdict(list)
    for n, clue in enumerate(clues):
        of_row[clue.row].append(n)
    some = sorted(of_row)
    check_watched(model)
    with answering(model, loaded.compute_dtype):
        for bucket in buckets([len(read[i]) for i in some], BATCH, POSITIONS):
            these = [some[n] for n in bucket]
            batch = padded([read[i] for i in these], pad_id(loaded.tokenizer), "right", device_of(model))
            asked = [(n, at, key) for at, i in enumerate(these) for n in of_row[i] for key in _wanted(clues[n], query)]
            pairs = torch.tensor([[at, clues[n].query, key] for n, at, key in asked])
            made = pair_attention(model, batch.input_ids, batch.attention_mask, pairs, layers=query.layers).double()
            begin = 0
            for n in dict.fromkeys(n for n, _, _ in asked):
                keys = _wanted(clues[n], query)
                maps, begin = made[begin : begin + len(keys)], begin + len(keys)
                share = maps[[keys.index(key) for key in clues[n].keys]].sum(0)
                left = maps.sum(0).clamp(min=1e-300) if query.without_first else torch.ones_like(share)
                found[n] = float((share / left).mean())
    return found


def _wanted(clue: Clue, query: AttentionQuery) -> list[int]:
    """Returns the keys whose attention is needed: the name's, or all that the query sees but the first."""
    return list(range(1, clue.query + 1)) if query.without_first else list(clue.keys)


def _summary(model: str, group: str, measured: Sequence[tuple[Clue, float]]) -> dict[str, str | int | float | None]:
    by_name: dict[str, list[float]] = defaultdict(list)
    for clue, share in measured:
        by_name[clue.name].append(share)
    means = [sum(shares) / len(shares) for shares in by_name.values()]
    over_names = interval(means)
    assert over_names is not None, "a group has at least one clue"
    distance = sum(clue.query - max(clue.keys) for clue, _ in measured) / len(measured)
    return {
        "model": model,
        "group": group,
        "distance": round(distance, 1),
        "mean": over_names.mean,
        "low": over_names.low,
        "high": over_names.high,
        "names": over_names.n,
    }
