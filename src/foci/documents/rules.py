"""Tables that are drawn with rules: the grid of lines on a page, and the text in its cells."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from foci.documents.layout import Run

NEAR = 3.0
"""Points within which two rules are one, or touch."""


@dataclass(frozen=True)
class Rule:
    """A level or upright line at `at` (its y where it is level, else its x), from `start` to `end`, in points."""

    level: bool
    at: float
    start: float
    end: float


@dataclass(frozen=True)
class Grid:
    """A ruled table: the x of its upright rules and the y of its level ones, both ascending."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    def holds(self, run: Run) -> bool:
        """Says whether a run stands inside."""
        middle = run.base + 0.25 * run.height
        inside = self.ys[0] - NEAR < middle < self.ys[-1] + NEAR
        return inside and run.left > self.xs[0] - NEAR and run.right < self.xs[-1] + NEAR

    def cell(self, run: Run) -> tuple[int, int]:
        """Returns the row (from the top) and the column of a run, both from 0."""
        row = len(self.ys) - 1 - bisect_right(self.ys, run.base + 0.25 * run.height)
        column = bisect_right(self.xs, run.left + 0.3 * run.em) - 1
        return min(max(row, 0), len(self.ys) - 2), min(max(column, 0), len(self.xs) - 2)


def rules_of(points: Sequence[tuple[float, float]]) -> Iterable[Rule]:
    """Yields the rules along the corners of a path, in points."""
    for (x, y), (u, v) in pairwise(points):
        if abs(y - v) < 1 and abs(x - u) > NEAR:
            yield Rule(True, (y + v) / 2, min(x, u), max(x, u))
        elif abs(x - u) < 1 and abs(y - v) > NEAR:
            yield Rule(False, (x + u) / 2, min(y, v), max(y, v))


def grids(rules: Sequence[Rule]) -> list[Grid]:
    """Returns the tables of two columns and two rows or more that the rules of a page draw."""
    made = []
    for group in _touching(rules):
        xs = _places(rule.at for rule in group if not rule.level)
        ys = _places(rule.at for rule in group if rule.level)
        if len(xs) > 2 and len(ys) > 2:
            made.append(Grid(tuple(xs), tuple(ys)))
    return made


def _touching(rules: Sequence[Rule]) -> list[list[Rule]]:
    """Returns the rules in groups that cross or touch each other."""
    groups: list[list[Rule]] = []
    for rule in rules:
        hits = [group for group in groups if any(_touch(rule, other) for other in group)]
        joined = [rule, *(other for group in hits for other in group)]
        groups = [*(group for group in groups if not any(group is hit for hit in hits)), joined]
    return groups


def _touch(one: Rule, two: Rule) -> bool:
    if one.level == two.level:
        return abs(one.at - two.at) < NEAR and one.start - NEAR < two.end and two.start - NEAR < one.end
    return one.start - NEAR < two.at < one.end + NEAR and two.start - NEAR < one.at < two.end + NEAR


def _places(values: Iterable[float]) -> list[float]:
    found: list[float] = []
    for value in sorted(values):
        if not found or value - found[-1] > NEAR:
            found.append(value)
    return found
