"""Words that say what a row is about count more: TF-IDF, the cheap floor that a learned weigher must beat.

Needs no model: counts of words in the corpus.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, Context, Prepares, Row, WeighsTokens

COLUMN = "salient"
_WORD = re.compile(r"\s*(\w+)")
"""A word and the space before it, which is part of its first token in most vocabularies."""


def tf_idf(rows: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """The weight of each term of each row: count in the row * (ln((1 + n) / (1 + rows with it)) + 1), largest = 1.

    n is the number of rows; the smooth idf of scikit-learn's TfidfVectorizer.

    >>> [{term: round(w, 3) for term, w in row.items()} for row in tf_idf([["the", "cat"], ["the", "the"]])]
    [{'the': 0.712, 'cat': 1.0}, {'the': 1.0}]
    """
    spread = Counter(term for row in rows for term in set(row))
    idf = {term: math.log((1 + len(rows)) / (1 + having)) + 1 for term, having in spread.items()}
    found = []
    for row in rows:
        raw = {term: count * idf[term] for term, count in Counter(row).items()}
        largest = max(raw.values(), default=1.0)
        found.append({term: weight / largest for term, weight in raw.items()})
    return found


@dataclass(frozen=True)
class Salient(WeighsTokens, Prepares):
    """Weighs a token by the TF-IDF of its word (or of itself) in the corpus, the largest of a row being 1.

    `unit` "word" counts words of the text, whatever the case, and gives every token of a word the word's weight;
    "token" counts token ids. A row is a document.
    """

    unit: Literal["word", "token"] = "word"

    def __post_init__(self) -> None:
        if self.unit not in ("word", "token"):
            raise ValueError(f"salient's unit is 'word' or 'token', got {self.unit!r}")

    def needs(self) -> frozenset[str]:
        """The column `salient` that `prepare` makes."""
        return frozenset({COLUMN})

    def prepare(self, context: Context) -> tuple["Salient", Sequence[Row]]:
        """Counts the terms of all rows and adds the column. Raises ValueError for a row of which words are unknown."""
        terms = [self._terms(row) for row in context.rows]
        counted = [sorted({at: term for line in terms_ for at, term in line}.items()) for terms_ in terms]
        weights = tf_idf([[term for _, term in found] for found in counted])
        rows = []
        for row, lines, weight in zip(context.rows, terms, weights, strict=True):
            column = tuple(max(weight[term] for _, term in line) for line in lines)
            rows.append(replace(row, columns={**row.columns, COLUMN: column}))
        return self, rows

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """The column. Raises ValueError where it is not there."""
        if COLUMN not in batch.columns:
            raise ValueError(
                f"salient reads the column {COLUMN!r}, got {sorted(batch.columns) or 'no columns'}; train on the rows "
                "that its prepare(context) returns"
            )
        return batch.columns[COLUMN]

    def _terms(self, row: Row) -> list[list[tuple[int, str]]]:
        """For each token its terms, each with the place where the occurrence begins (one occurrence, one place)."""
        if self.unit == "token":
            return [[(at, str(token))] for at, token in enumerate(row.input_ids)]
        if not row.offsets:
            raise ValueError(
                f"salient by word needs the text and character offsets of every row, row {row.row_id} has none; "
                "set unit: token"
            )
        words = [(match.start(), match.end(), match.group(1).casefold()) for match in _WORD.finditer(row.text)]
        return [
            [(start, word) for start, end, word in words if start < b and end > a]
            or [(a, f" {row.text[a:b].strip()}") if b > a else (-1 - at, f" {token}")]
            for at, (token, (a, b)) in enumerate(zip(row.input_ids, row.offsets, strict=True))
        ]
