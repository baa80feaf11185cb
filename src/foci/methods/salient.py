"""Weighs tokens by TF-IDF, the cheap floor that a learned weigher must beat.

Needs no model: counts of words in the corpus.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from foci.corpus.tokens import overlap
from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.methods._prepared import Prepared, add_column, column_of

COLUMN = "salient"
_WORD = re.compile(r"\s*(\w+)")
"""A word and the space before it, which is part of its first token in most vocabularies."""


def tf_idf(rows: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Returns the weight of each term of each row: count in the row * (ln((1 + n) / (1 + rows with it)) + 1).

    The largest of a row is made 1. n is the number of rows; the smooth idf of scikit-learn's TfidfVectorizer.

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
class Salient(Prepares):
    """Weighs each token by the TF-IDF of its word: high where it is frequent in its row and rare in the corpus.

    The largest weight of a row is 1. `unit` "word" counts words of the text, whatever the case, and gives every
    token of a word the word's weight; "token" counts token ids. A row is a document.
    """

    unit: Literal["word", "token"] = "word"

    def __post_init__(self) -> None:
        if self.unit not in ("word", "token"):
            raise ValueError(f"salient's unit is 'word' or 'token', got {self.unit!r}")

    def prepare(self, context: Context) -> tuple["SalientWeights", Sequence[Row]]:
        """Adds the column `salient`. Raises ValueError for a row whose words are unknown."""
        terms = [self._terms(row) for row in context.rows]
        counted = [sorted({at: term for line in terms_ for at, term in line}.items()) for terms_ in terms]
        weights = tf_idf([[term for _, term in found] for found in counted])
        columns = (
            [max(weight[term] for _, term in line) for line in lines]
            for lines, weight in zip(terms, weights, strict=True)
        )
        return SalientWeights(self), add_column(context.rows, COLUMN, columns)

    def _terms(self, row: Row) -> list[list[tuple[int, str]]]:
        """Returns for each token its terms, each with the place where the occurrence begins."""
        if self.unit == "token":
            return [[(at, str(token))] for at, token in enumerate(row.input_ids)]
        if not row.offsets:
            raise ValueError(
                f"salient by word needs the text and character offsets of every row, row {row.row_id} has none; "
                "set unit: token"
            )
        words = [(match.span(), match.group(1).casefold()) for match in _WORD.finditer(row.text)]
        return [
            [(span[0], word) for span, word in words if overlap((a, b), span)]
            or [(a, f" {row.text[a:b].strip()}") if b > a else (-1 - at, f" {token}")]
            for at, (token, (a, b)) in enumerate(zip(row.input_ids, row.offsets, strict=True))
        ]


@dataclass(frozen=True, repr=False)
class SalientWeights(Prepared, WeighsTokens):
    """Weighs tokens by the TF-IDF of their words."""

    settings: Salient

    def needs(self) -> frozenset[str]:
        """Names the column `salient`."""
        return frozenset({COLUMN})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns the column. Raises ValueError where it is not there."""
        return column_of(batch, COLUMN, "salient")
