"""Learned against retained along the change that training made, and the points that are compared on it.

Between two measured points every number is interpolated linearly in the share of the change. A point is chosen by the
answer tokens of held-out probes (`held_out_learned`, `held_out_retained`: finer steps than whole answers), and what is
reported there are the whole answers of the others (`learned_whole`, `retained_whole`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from foci.probes import Answer
from foci.probes.held_out import fact, facts_held_out

Points = Sequence[Mapping[str, Any]]
"""Measured points by rising share: `at` (0 to 1), and shares of answer tokens or None."""
SPLIT = 0.5
"""The share of facts that choose, where a run has no held-out probes."""


def measured(answers: Sequence[Answer], seed: int) -> dict[str, float | None]:
    """Returns the means of accuracy over reported and over held-out probes, to learn and to retain, by name.

    Of reported probes there is the share of whole answers that are right, too.

    Where probes to learn and to retain are not both held out, half of the facts are, by the seed and their names.
    """
    known = [a for a in answers if a.counted]
    if {a.role for a in known if a.held_out} != {"learn", "retain"}:
        names = [(a.role, fact(a.group, a.answer, a.probe_id)) for a in known]
        chosen = facts_held_out(names, SPLIT, seed)
        known = [replace(a, held_out=name in chosen) for a, name in zip(known, names, strict=True)]

    def mean(role: str, *, held_out: bool, whole: bool = False) -> float | None:
        some = [float(a.correct if whole else a.accuracy) for a in known if (a.role, a.held_out) == (role, held_out)]
        return sum(some) / len(some) if some else None

    return {
        "learned_whole": mean("learn", held_out=False, whole=True),
        "retained_whole": mean("retain", held_out=False, whole=True),
        "learned": mean("learn", held_out=False),
        "retained": mean("retain", held_out=False),
        "held_out_learned": mean("learn", held_out=True),
        "held_out_retained": mean("retain", held_out=True),
    }


def interpolated(points: Points, share: float, name: str) -> float | None:
    """Returns a number of the curve at a share, linear between the two measured points around it; None if unknown.

    >>> interpolated([{"at": 0.0, "learned": 0.0}, {"at": 0.5, "learned": 0.4}], 0.25, "learned")
    0.2
    """
    low = max((p for p in points if p["at"] <= share), key=lambda p: p["at"])
    high = min((p for p in points if p["at"] >= share), key=lambda p: p["at"])
    a, b = low.get(name), high.get(name)
    if a is None or b is None:
        return None
    part = (share - low["at"]) / (high["at"] - low["at"]) if high["at"] > low["at"] else 0.0
    return float(a + part * (b - a))


def crossings(points: Points, name: str, level: float) -> list[float]:
    """Returns the shares at which a number of the curve is exactly `level`, rising."""
    found = []
    for low, high in pairwise(points):
        a, b = low.get(name), high.get(name)
        if a is not None and b is not None and a != b and min(a, b) <= level <= max(a, b):
            found.append(low["at"] + (level - a) / (b - a) * (high["at"] - low["at"]))
    return [*found, *(p["at"] for p in points if p.get(name) == level)]


def at_kept(points: Points, keep: float) -> float | None:
    """Returns the share at which most is learned while at least `keep` is retained, both on held-out probes.

    It is the smallest of equals. None where nothing was asked, or nothing keeps so much.
    """
    shares = [*(p["at"] for p in points), *crossings(points, "held_out_retained", keep)]
    good = []
    for share in sorted(shares):
        kept, learned = (interpolated(points, share, f"held_out_{name}") for name in ("retained", "learned"))
        if kept is not None and learned is not None and kept >= keep - 1e-12:
            good.append((learned, -share))
    return -max(good)[1] if good else None


def at_learned(points: Points, level: float) -> float | None:
    """Returns the smallest share at which at least `level` is learned on held-out probes; None where it never is."""
    reached = [p["at"] for p in points if (p.get("held_out_learned") or 0.0) >= level]
    return min([*reached, *crossings(points, "held_out_learned", level)], default=None)


def learned_at_kept(points: Points, keep: float) -> float | None:
    """Returns what is learned at the point that `at_kept` chooses, on the reported probes."""
    share = at_kept(points, keep)
    return None if share is None else interpolated(points, share, "learned_whole")


def kept_at_learned(points: Points, base: Points) -> float | None:
    """Returns what is retained, on the reported probes, where the arm has learned as much as the base's whole change.

    The point is chosen by what both learned on held-out probes. None where the arm never learns so much.
    """
    level = base[-1].get("held_out_learned") if base else None
    share = None if level is None else at_learned(points, level)
    return None if share is None else interpolated(points, share, "retained_whole")
