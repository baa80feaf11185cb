"""From attention received in two models to the chance of every token to be dropped (arXiv 2409.17954, section 4).

    d[j] = s_large[j] - s_small[j]           the more elusive a token, the larger
    r[j] = rank of d[j] in its row, the largest 0
    p[j] = alpha (1 - exp(-beta r[j]))       0 for tokens that must stay

Controls rank otherwise, or not at all, and their chances are multiplied by one number, so that over all rows as many
tokens are dropped on average as with d.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foci.seeds import generator
from foci.system.words import counted

By = Literal["difference", "reversed", "large", "small", "random", "random_ranks", "forward", "backward", "told"]
"""By what tokens are ranked: d, -d, one model's attention alone, nothing (all chances alike), chance, or the position:
"forward" drops late tokens, "backward" early ones. "told" is an oracle: names and answers stay, all others go alike.
"""


@dataclass(frozen=True)
class RowAttention:
    """One row: the attention its tokens receive in both models, and whether each may be dropped. Shape: seq.

    `plain` is true for tokens that are neither of a name nor of an answer; None where the corpus does not say.
    """

    row_id: str
    large: NDArray[np.float64]
    small: NDArray[np.float64]
    free: NDArray[np.bool_]
    plain: NDArray[np.bool_] | None = None

    @property
    def difference(self) -> NDArray[np.float64]:
        """Returns d: above 0 where the large model attends more."""
        return self.large - self.small


def ranks(scores: Sequence[int | float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Ranks scores, the largest 0; of equals the earlier one comes first.

    >>> ranks([0.1, 0.5, 0.1, 0.3]).tolist()
    [2, 0, 3, 1]
    """
    order = np.argsort(-np.asarray(scores, dtype=float), kind="stable")
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.arange(len(order))
    return found


def drop_probability(rank: int, alpha: float, beta: float) -> float:
    """Returns p(r) = alpha (1 - exp(-beta r)): 0 for the most elusive token, rising towards `alpha`.

    >>> [round(drop_probability(r, alpha=0.6, beta=0.03), 4) for r in (0, 1, 23, 1000)]
    [0.0, 0.0177, 0.2991, 0.6]
    """
    return -alpha * math.expm1(-beta * rank)


def ranked(row: RowAttention, by: By, seed: int) -> NDArray[np.int64]:
    """Ranks every token in its row; "random" and "told" get the method's own ranks, which they do not use."""
    size = len(row.free)
    if by == "random_ranks":
        return generator("contrast ranks", seed, row.row_id).permutation(size)
    if by in ("forward", "backward"):
        return np.arange(size) if by == "forward" else np.arange(size)[::-1].copy()
    return ranks({"large": row.large, "small": row.small, "reversed": -row.difference}.get(by, row.difference))


def chances(
    rows: Sequence[RowAttention], by: By, alpha: float, beta: float, seed: int, rate: float | None = None
) -> list[NDArray[np.float64]]:
    """Returns the chance of every token of every row to be dropped, between 0 and 1.

    Their mean over all tokens is `rate`; for None that of "difference", whatever `by` is. Raises ValueError where that
    mean cannot be reached, no token may be dropped, or the difference is the same on all tokens.
    """
    if not any(len(row.free) and np.ptp(row.difference) > 0 for row in rows):
        raise ValueError(
            f"the two models attend alike: the difference is the same on all tokens of all {len(rows)} rows, so that "
            "ranks would mean nothing; compare other models, or other layers"
        )

    def by_formula(ranks: NDArray[np.int64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
        table = np.array([drop_probability(rank, alpha, beta) for rank in range(len(ranks))])
        return np.where(free, table[ranks], 0.0)

    wanted = sum(float(by_formula(ranked(row, "difference", seed), row.free).sum()) for row in rows)
    tokens = sum(len(row.free) for row in rows)
    if not wanted:
        raise ValueError(
            f"none of the {tokens} tokens of {counted(len(rows), 'row')} may be dropped: they are "
            "protected, special, seen by no query or alone in their row; protect less, or give longer rows"
        )
    if by in ("random", "told"):
        made = [(row.free if by == "random" else row.free & _plain(row)).astype(float) for row in rows]
    else:
        made = [by_formula(ranked(row, by, seed), row.free) for row in rows]
    wanted = wanted if rate is None else rate * tokens
    total = sum(float(chance.sum()) for chance in made)
    factor = wanted / total if total else 0.0
    made = [np.minimum(chance * factor, 1.0) for chance in made]
    if (reached := sum(float(chance.sum()) for chance in made)) < 0.99 * wanted:
        raise ValueError(
            f"a share of {wanted / tokens:.3f} of the tokens should be dropped by {by!r}, with chances of at most 1 "
            f"it is {reached / tokens:.3f}; lower the rate or alpha"
        )
    return made


def _plain(row: RowAttention) -> NDArray[np.bool_]:
    """Returns the tokens that are neither of a name nor of an answer. ValueError where the corpus does not say."""
    if row.plain is None:
        raise ValueError(
            f"by: told keeps names and answers, but nothing tells where those of row {row.row_id} are; give the corpus "
            "as .jsonl lines with name_spans and answer_spans (foci data biographies), or rank by something else"
        )
    return row.plain
