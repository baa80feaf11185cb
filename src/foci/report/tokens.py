"""Rows of tokens for the report: each token with its colours, and where the weight lies by kind of token."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from foci.report.read import Arm
from foci.report.words import number

ANSWER, REST = "answers", "all but answers"
KINDS = (ANSWER, REST, "numbers", "capitalised words", "other words", "punctuation")
"""In the order of the table; a token is of its word's kind. The first two are of corpora that mark answers."""

SPECIAL = "special tokens"
"""Tokens that stand for no text, such as the end of a row; not in the table."""

_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z]+\]")
_WORD = re.compile(r"\w+(?:[.,’'-]\w+)*")  # noqa: RUF001 - an apostrophe as it is printed


def short(value: Any) -> float | None:
    """Rounds a number for the page; None for anything else."""
    known = number(value)
    return None if known is None else round(known, 3)


def samples(arms: Sequence[tuple[str, Arm]]) -> tuple[list[dict[str, Any]], int]:
    """Returns sample rows, each with its arms' tokens, and the NLL in nats at which the colour is fullest."""
    rows: dict[str, dict[str, Any]] = {}
    for index, (name, arm) in enumerate(arms):
        for sample in arm.samples:
            row_id = str(sample.get("row_id", ""))
            row = rows.setdefault(row_id, {"row_id": row_id, "source": sample.get("source", ""), "arms": []})
            row["arms"].append({"index": index, "name": name, "tokens": coloured(sample)})
    known = sorted(
        nll
        for row in rows.values()
        for arm in row["arms"]
        for token in arm["tokens"]
        for nll in (token["before"], token["after"])
        if nll is not None
    )
    top = max(1, math.ceil(known[int(0.95 * (len(known) - 1))])) if known else 1
    return list(rows.values()), top


def spread(named: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """Returns, per name whose weights differ, a line per kind of token: `tokens` (how many), their `mean`
    weight and the `share` of all weight that lies on them. Without each row's first token, which nothing predicts.
    """
    found = []
    for index, (name, rows) in enumerate(named):
        weights = [(kind, w) for row in rows for kind, w in _weighed(row)]
        if len({w for _, w in weights}) < 2:
            continue
        total = sum(w for kind, w in weights if kind not in (ANSWER, REST))
        for kind in KINDS:
            own = [w for k, w in weights if k == kind]
            if own:
                mean, share = sum(own) / len(own), sum(own) / total if total else None
                found.append(
                    {"index": index, "name": name, "kind": kind, "tokens": len(own), "mean": mean, "share": share}
                )
    return found


def coloured(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a sample row's tokens: `text`, `weight`, NLL `before` and `after` in nats; None where unknown."""
    tokens = sample["tokens"]
    columns = {"weight": "weights", "before": "nll_before", "after": "nll_after"}
    values = {name: _column(sample.get(long), len(tokens)) for name, long in columns.items()}
    return [
        {"text": str(token).replace("\n", "⏎\n")} | {name: values[name][t] for name in columns}
        for t, token in enumerate(tokens)
    ]


def kinds(tokens: Sequence[str]) -> list[str]:
    """Returns the kind of each token: that of the first word it has a part of.

    >>> kinds([" Mar", "ie-Anne", " left", " 19", "84", ".", "<eos>"])  # doctest: +NORMALIZE_WHITESPACE
    ['capitalised words', 'capitalised words', 'other words', 'numbers', 'numbers', 'punctuation', 'special tokens']
    """
    found, text, start = [], "".join(tokens), 0
    words = [(match.start(), match.end(), match[0]) for match in _WORD.finditer(text)]
    for token in tokens:
        end = start + len(token)
        word = next((word for a, b, word in words if a < end and b > start), "")
        found.append(SPECIAL if _SPECIAL.fullmatch(token) else _kind(word))
        start = end
    return found


def _kind(word: str) -> str:
    if not word:
        return "punctuation"
    if any(letter.isdigit() for letter in word):
        return "numbers"
    return "capitalised words" if word[0].isupper() else "other words"


def _weighed(sample: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Returns (kind, weight) of every weighed token but the first; twice where answers are marked."""
    tokens = [str(token) for token in sample["tokens"]]
    weights, answer = (_column(sample.get(name), len(tokens)) for name in ("weights", "answer"))
    marked = any(value is not None for value in answer)
    found = []
    for kind, weight, asked in list(zip(kinds(tokens), weights, answer, strict=True))[1:]:
        if kind != SPECIAL and weight is not None:
            found += [(kind, weight)] + ([(ANSWER if asked else REST, weight)] if marked else [])
    return found


def _column(values: Any, length: int) -> list[float | None]:
    known = [short(v) for v in values] if isinstance(values, list) else []
    return (known + [None] * length)[:length]
