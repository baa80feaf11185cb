"""Controls for a table of accuracies: answers that need no knowledge, and skewed answers.

A probe set in which one answer is frequent can be "learned" by always giving it. `majority` is the accuracy of
that; `balanced` counts every distinct answer alike, so that it would gain little.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Asked(Protocol):
    """The attributes of a probe or an answer that controls read."""

    @property
    def group(self) -> str: ...

    @property
    def answer(self) -> str: ...


def majority(probes: Sequence[Asked]) -> float:
    """Share of probes whose answer is the most frequent one of their group: always saying it gives this accuracy.

    Answers are compared as they are written. Ties do not matter: each of them gives the same.
    """
    _not_empty(probes)
    return sum(_is_majority(probes)) / len(probes)


def balanced(probes: Sequence[Asked], scores: Sequence[float]) -> float:
    """Mean over distinct answers (within a group) of the mean result of their probes."""
    _not_empty(probes)
    if len(scores) != len(probes):
        raise ValueError(f"expected one score per probe ({len(probes)}), got {len(scores)}")
    by_answer: dict[tuple[str, str], list[float]] = defaultdict(list)
    for probe, score in zip(probes, scores, strict=True):
        by_answer[probe.group, probe.answer].append(score)
    return sum(sum(found) / len(found) for found in by_answer.values()) / len(by_answer)


def balanced_majority(probes: Sequence[Asked]) -> float:
    """Returns `balanced` of always giving the majority answer: groups / distinct answers within groups."""
    return balanced(probes, [float(right) for right in _is_majority(probes)])


def _is_majority(probes: Sequence[Asked]) -> list[bool]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for probe in probes:
        counts[probe.group][probe.answer] += 1
    chosen = {group: counter.most_common(1)[0][0] for group, counter in counts.items()}
    return [probe.answer == chosen[probe.group] for probe in probes]


def _not_empty(probes: Sequence[Asked]) -> None:
    if not probes:
        raise ValueError("a control needs at least one probe, got none; leave it out where nothing was asked")
