"""Values of tokens, carried from one tokenizer to another through the characters they stand for.

A value (a weight) is the same on every character of its token: `to_characters`, `to_tokens`. A mass (a share of
attention) is divided among them, and what pieces have adds up: `spread`, `gathered`.
"""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from foci.corpus.tokens import tokens
from foci.focus import Row


def retokenised(row: Row, tokenizer: PreTrainedTokenizerBase, reader: str) -> Row:
    """The row's text in the tokens of another tokenizer, without columns. ValueError for a row without text.

    `reader` says in words who has that tokenizer.
    """
    if not row.offsets or not row.text:
        raise ValueError(
            f"row {row.row_id} has no text, and {reader} has another tokenizer than the model that learns; values go "
            "between them through characters, so give rows with text and offsets"
        )
    ((ids, offsets),) = tokens([row.text], tokenizer)
    return Row(row.row_id, ids, row.text, offsets)


def to_characters(
    values: Sequence[float], offsets: Sequence[tuple[int, int]], length: int, missing: float
) -> list[float]:
    """One value per character of a text of `length`: that of its token, or the mean of its tokens' (a byte-level
    vocabulary may spell a character with several); `missing` where no token stands.

    >>> to_characters([1.0, 3.0], [(0, 2), (3, 4)], 4, 0.5)
    [1.0, 1.0, 0.5, 3.0]
    """
    sums, counts = np.zeros(length), np.zeros(length)
    for value, (start, end) in zip(values, offsets, strict=True):
        sums[start:end] += value
        counts[start:end] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1), missing).tolist()


def to_tokens(characters: Sequence[float], offsets: Sequence[tuple[int, int]], missing: float) -> list[float]:
    """One value per token: the mean over its characters; `missing` for a token that stands for none.

    >>> to_tokens([1.0, 1.0, 0.5, 3.0], [(0, 0), (0, 1), (2, 4)], 1.0)
    [1.0, 1.0, 1.75]
    """
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(characters, dtype=float))])
    return [float((sums[end] - sums[start]) / (end - start)) if end > start else missing for start, end in offsets]


def spread(masses: Sequence[float], offsets: Sequence[tuple[int, int]], text: str) -> list[float]:
    """Each token's mass in equal parts on its characters, those that are not white space if there are any: whether the
    space before a word is part of its token differs between tokenizers. What stands for no text is left out.

    >>> spread([0.5, 0.25, 0.25], [(0, 0), (0, 1), (1, 4)], "I am")
    [0.25, 0.0, 0.125, 0.125]
    """
    sums = [0.0] * len(text)
    for mass, (start, end) in zip(masses, offsets, strict=True):
        inked = [at for at in range(start, end) if not text[at].isspace()] or range(start, end)
        for at in inked:
            sums[at] += mass / len(inked)
    return sums


def gathered(characters: Sequence[float], offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Adds up the values of each token's characters; a character that several tokens spell is shared among them.

    >>> gathered([0.25, 0.0, 0.125, 0.125], [(0, 2), (2, 4), (2, 4), (0, 0)])
    [0.25, 0.125, 0.125, 0.0]
    """
    owners = np.zeros(len(characters))
    for start, end in offsets:
        owners[start:end] += 1
    share = np.asarray(characters, dtype=float) / np.maximum(owners, 1)
    return [float(share[start:end].sum()) for start, end in offsets]
