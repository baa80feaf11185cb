"""Spans to trace through a model: answers of probes, marks of a corpus, rare words, and random spans beside them.

A traced span is a text up to the span's end and where the span begins: nothing after it can change its loss. Whatever a
run will ask is kept out (`asked`), so that tracing data is never evaluation data.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

from foci.corpus.tokens import overlap
from foci.focus import Row
from foci.probes.encode import encode
from foci.probes.probe import Probe

_NUMBER = re.compile(r"\d(?:[\d.,:]*\d)?")
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Span:
    """The tokens `ids[start:]`, read after `ids[:start]`; `start` is at least 1, since a first token has no NLL."""

    ids: tuple[int, ...]
    start: int

    def __post_init__(self) -> None:
        if not 1 <= self.start < len(self.ids):
            raise ValueError(
                f"a span begins at token 1 or later of its {len(self.ids)} tokens and holds at least one, "
                f"got start {self.start}"
            )

    def __len__(self) -> int:
        return len(self.ids) - self.start


def asked_spans(probes: Sequence[Probe], tokenizer: PreTrainedTokenizerBase, asked: Collection[str]) -> list[Span]:
    """Returns the answer of every probe, after its prompt. Raises ValueError where the run asks one of them, too."""
    if both := [probe for probe in probes if probe.prompt.strip() in asked]:
        raise ValueError(
            f"{len(both)} of {len(probes)} probes to trace are asked by the run as well, such as {both[0].id!r} "
            f"({both[0].prompt.strip()!r}): tracing data must not be evaluation data; trace other probes"
        )
    return [Span(row.input_ids, row.columns["answer"].index(1.0)) for row in encode(probes, tokenizer)]


def marked_spans(rows: Sequence[Row]) -> list[Span]:
    """Returns every stretch of tokens with 1 in the column `answer` (`answer_spans`) that has a token before it."""
    found = []
    for row in rows:
        at = 0
        for marked, tokens in groupby(row.columns.get("answer", ()), key=lambda value: value > 0):
            start, at = at, at + len(list(tokens))
            if marked and start:
                found.append(Span(row.input_ids[:at], start))
    return found


def rare_spans(rows: Sequence[Row]) -> list[Span]:
    """Returns of every row its rarest word and its first number: a guess at what is new where nothing says so.

    The rarest word stands in the fewest rows (whatever its case); of equals the longest, then the first, is taken.
    Words have two letters or more. What opens a row is left out, since a first token has no NLL.
    """
    spread = Counter(word for row in rows for word in {match[0].casefold() for match in _WORD.finditer(row.text)})
    found = []
    for row in rows:
        first = next((b for a, b in row.offsets if b > a), 0)
        words = [match for match in _WORD.finditer(row.text) if match.start() >= first]
        words.sort(key=lambda match: (spread[match[0].casefold()], -len(match[0])))
        numbers = (match for match in _NUMBER.finditer(row.text) if match.start() >= first)
        for match in (*words[:1], *([number] if (number := next(numbers, None)) else ())):
            inside = [t for t, place in enumerate(row.offsets) if overlap(place, match.span())]
            if inside and inside[0]:
                found.append(Span(row.input_ids[: inside[-1] + 1], inside[0]))
    return found


def random_spans(rows: Sequence[Row], lengths: Sequence[int], rng: np.random.Generator) -> list[Span]:
    """Draws one span of each length (tokens) at a random place of a random row that has room: the control.

    Raises ValueError where no row is longer than a length.
    """
    found = []
    for length in lengths:
        fitting = [row for row in rows if len(row) > length]
        if not fitting:
            raise ValueError(
                f"a random span of {length} tokens needs a reference row of more, got at most "
                f"{max((len(row) for row in rows), default=0)}; give longer reference text, or trace shorter spans"
            )
        row = fitting[rng.integers(len(fitting))]
        start = int(rng.integers(1, len(row) - length + 1))
        found.append(Span(row.input_ids[: start + length], start))
    return found


def whole(rows: Sequence[Row]) -> list[Span]:
    """Returns every row as one span, all but its first token: an ordinary sequence."""
    return [Span(row.input_ids, 1) for row in rows]


def unasked(rows: Sequence[Row], asked: Collection[str]) -> Iterator[Row]:
    """Returns the rows that hold none of the questions that the run asks, word for word."""
    for row in rows:
        if not any(question in row.text for question in asked):
            yield row


def spans_key(spans: Sequence[Span]) -> str:
    """Returns 16 hex digits: the hash of all spans, in this order."""
    digest = hashlib.sha256()
    for span in spans:
        digest.update(f"{span.ids} {span.start}\n".encode())
    return digest.hexdigest()[:16]
