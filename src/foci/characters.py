"""Values of tokens, carried from one tokenizer to another through the characters they stand for."""

from collections.abc import Sequence

import numpy as np


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
