"""The result of a trial: how much it learned and kept, and whether two trials can be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foci.probes import Answer
from foci.seeds import generator

DRAWS = 2000
"""Times that the questions are drawn anew, with replacement, for an interval."""


@dataclass(frozen=True)
class Result:
    """A trial's answers: accuracies (0 to 1) by probe, of the held-out ones to learn and of those to retain."""

    learned: Mapping[str, float]
    kept: Mapping[str, float]
    seconds: float

    @classmethod
    def of(cls, answers: Sequence[Answer], seconds: float) -> "Result":
        """Returns the result of a trial's last answers; probes to retain count where the untouched model knew them."""
        learned = {a.probe_id: a.accuracy for a in answers if a.role == "learn" and a.held_out}
        kept = {a.probe_id: a.accuracy for a in answers if a.role == "retain" and a.counted}
        return cls(learned, kept, seconds)

    @property
    def merit(self) -> float:
        """Learned + retained: the mean accuracies on held-out probes to learn and on probes to retain."""
        return _mean(self.learned) + _mean(self.kept)


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else 0.0


def ranked(results: Mapping[str, Result]) -> list[str]:
    """Returns the trials, the best first; of equals the earlier."""
    return sorted(results, key=lambda name: -results[name].merit)


def behind(best: Result, other: Result, seed: int) -> tuple[float, float, float]:
    """Returns how much less another trial learned and kept: the difference and its 95 % interval over the questions.

    Both trials answer the same drawn questions. The interval says nothing of another seed of training.
    """
    rng, total = generator(seed, "advice"), np.zeros(DRAWS)
    for own, their in ((best.learned, other.learned), (best.kept, other.kept)):
        gaps = np.array([own[name] - their[name] for name in own if name in their])
        if len(gaps):
            total += gaps[rng.integers(len(gaps), size=(DRAWS, len(gaps)))].mean(axis=1)
    low, high = np.quantile(total, [0.025, 0.975])
    return best.merit - other.merit, float(low), float(high)
