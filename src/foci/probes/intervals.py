"""Means over seeds with Student's t intervals: of values, of paired differences, and of ratios."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats  # type: ignore[import-untyped]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over `n` values and the limits of its interval, which are None for a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int


def interval(values: Sequence[int | float | None], confidence: float = CONFIDENCE) -> Mean | None:
    """Returns the mean and its t interval: mean +- t(n - 1) * s / sqrt(n), s with n - 1 in its denominator.

    Values that are None are left out; where nothing is left, the result is None.

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
    """Returns the mean of `values - base`, seed by seed, with its interval (a paired t interval).

    Both hold one value per seed, in the same order. A seed whose value is None on either side is left out.
    Raises ValueError where the two have different lengths.
    """
    if len(values) != len(base):
        raise ValueError(
            f"a paired difference needs one value per seed on both sides, got {len(values)} and {len(base)}; "
            "give None for a seed that has no value"
        )
    return interval([None if a is None or b is None else a - b for a, b in zip(values, base, strict=True)], confidence)


def ratio(values: Sequence[int | float | None], confidence: float = CONFIDENCE) -> Mean | None:
    """Returns the geometric mean of ratios above 0, with the t interval of their logarithms. None values are left out.

    >>> found = ratio([0.25, 1.0])
    >>> found.mean, found.low > 0
    (0.5, True)
    """
    logs = interval([None if value is None else math.log(value) for value in values], confidence)
    if logs is None:
        return None
    low, high = (None if end is None else math.exp(min(end, 700.0)) for end in (logs.low, logs.high))
    return Mean(math.exp(logs.mean), low, high, logs.n)


def as_data(mean: Mean | None) -> dict[str, Any]:
    """Returns a mean as a mapping for a JSON file; empty for None."""
    return {} if mean is None else asdict(mean)
