"""Means over seeds with Student's t intervals, and paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats  # type: ignore[import-untyped]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over `n` seeds and the limits of its interval; None where one value, or none, gives no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int


def interval(values: Sequence[int | float | None], confidence: float = CONFIDENCE) -> Mean | None:
    """Mean and t interval: mean +- t(n - 1) * s / sqrt(n), s with n - 1 in its denominator. None values are left out.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 3), round(found.high, 3)
    (2.0, -0.484, 4.484)
    """
    known = [value for value in values if value is not None]
    n = len(known)
    if not n:
        return None
    mean = math.fsum(known) / n
    if n == 1:
        return Mean(mean, None, None, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread / math.sqrt(n)
    return Mean(mean, mean - half, mean + half, n)


def difference(
    values: Sequence[int | float | None], base: Sequence[int | float | None], confidence: float = CONFIDENCE
) -> Mean | None:
    """The mean of `values - base`, seed by seed, with its interval (a paired t interval).

    Both hold one value per seed, in the same order; a seed that either has not is left out.
    """
    if len(values) != len(base):
        raise ValueError(
            f"a paired difference needs one value per seed on both sides, got {len(values)} and {len(base)}"
        )
    return interval([None if a is None or b is None else a - b for a, b in zip(values, base, strict=True)], confidence)
