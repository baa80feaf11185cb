"""Learned against retained along the change that training made, and the points that are compared on it.

Between two neighbouring measured points every number is interpolated linearly in the share of the change; nothing is
extrapolated. A curve may rise and fall: every crossing of a target is found. A point is chosen by the answer tokens of
held-out probes (`held_out_learned`, `held_out_retained`: finer steps than whole answers), and what is reported there
are the whole answers of the others (`learned_whole`, `retained_whole`). Where answers are spans that are hardly ever
right as a whole, arms are compared by NLL and the bits per byte of prose (`held_out_learned_nll`, `bits_per_byte`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from foci.probes import Answer
from foci.probes.held_out import fact, facts_held_out

Points = Sequence[Mapping[str, Any]]
"""Measured points by rising share: `at` (0 to 1), and by name what was measured there, or None."""
SPLIT = 0.5
"""The share of facts that choose, where a run has no held-out probes."""
SLACK = 1e-12
"""By how much a target may be missed: the rounding of an interpolated number."""
COMPARED = {
    "learned_at_kept": ("learned_whole", "at_kept"),
    "tokens_at_kept": ("learned", "at_kept"),
    "kept_at_plain": ("retained_whole", "at_plain"),
    "kept_tokens_at_plain": ("retained", "at_plain"),
    "nll_at_prose": ("learned_nll", "at_prose"),
    "prose_at_nll": ("bits_per_byte", "at_nll"),
}
"""The numbers by which arms are compared: of each the number of the curve, and the share at which it is read."""


def measured(answers: Sequence[Answer], seed: int) -> dict[str, float | None]:
    """Returns the means of accuracy over reported and over held-out probes, to learn and to retain, by name.

    Of reported probes there is the share of whole answers that are right, too, and of probes to learn the mean NLL
    (nats per answer token).

    Where none of the probes to learn, or none of those to retain, are held out, half of their facts are, by the seed
    and their names.
    """
    known = [a for a in answers if a.counted]
    held = {a.role for a in known if a.held_out}
    names = [(a.role, fact(a.group, a.answer, a.probe_id)) for a in known]
    chosen = facts_held_out((name for name in names if name[0] not in held), SPLIT, seed)
    known = [replace(a, held_out=a.held_out or name in chosen) for a, name in zip(known, names, strict=True)]

    def mean(role: str, held_out: bool, number: Callable[[Answer], float]) -> float | None:
        some = [float(number(a)) for a in known if (a.role, a.held_out) == (role, held_out)]
        return sum(some) / len(some) if some else None

    return {
        "learned_whole": mean("learn", False, lambda a: a.correct),
        "retained_whole": mean("retain", False, lambda a: a.correct),
        "learned": mean("learn", False, lambda a: a.accuracy),
        "retained": mean("retain", False, lambda a: a.accuracy),
        "learned_nll": mean("learn", False, lambda a: a.nll),
        "held_out_learned": mean("learn", True, lambda a: a.accuracy),
        "held_out_retained": mean("retain", True, lambda a: a.accuracy),
        "held_out_learned_nll": mean("learn", True, lambda a: a.nll),
    }


def interpolated(points: Points, share: float | None, name: str) -> float | None:
    """Returns a number of the curve at a share, linear between the two measured points around it; None if unknown.

    A share of None, or one beyond the measured points, is unknown.

    >>> interpolated([{"at": 0.0, "learned": 0.0}, {"at": 0.5, "learned": 0.4}], 0.25, "learned")
    0.2
    """
    if share is None or not points or not points[0]["at"] <= share <= points[-1]["at"]:
        return None
    low = max((p for p in points if p["at"] <= share), key=lambda p: p["at"])
    high = min((p for p in points if p["at"] >= share), key=lambda p: p["at"])
    a, b = low.get(name), high.get(name)
    if a is None or b is None:
        return None
    part = (share - low["at"]) / (high["at"] - low["at"]) if high["at"] > low["at"] else 0.0
    return float(a + part * (b - a))


def crossings(points: Points, name: str, level: float) -> list[float]:
    """Returns the shares at which a number of the curve is exactly `level`, rising; both ends of a stretch that is."""
    found = {p["at"] for p in points if p.get(name) == level}
    for low, high in pairwise(points):
        a, b = low.get(name), high.get(name)
        if a is not None and b is not None and min(a, b) < level < max(a, b):
            found.add(low["at"] + (level - a) / (b - a) * (high["at"] - low["at"]))
    return sorted(found)


def at_best(points: Points, wanted: str, limited: str, limit: float, *, low: bool = False) -> float | None:
    """Returns the share with the largest `wanted` among those whose `limited` is at least `limit`.

    With `low` it is the smallest `wanted` where `limited` is at most `limit`. On straight lines it lies at a measured
    point or where `limited` crosses the limit. It is the smallest share of equals. None where nothing was asked, or
    the limit is kept nowhere.
    """
    sign = -1 if low else 1
    good = []
    for share in {*(p["at"] for p in points), *crossings(points, limited, limit)}:
        held, value = interpolated(points, share, limited), interpolated(points, share, wanted)
        if held is not None and value is not None and sign * (held - limit) >= -SLACK:
            good.append((sign * value, -share))
    return -max(good)[1] if good else None


def at_first(points: Points, name: str, level: float, *, low: bool = False) -> float | None:
    """Returns the smallest share at which a number is at least `level` (with `low`: at most); None where none is."""
    sign = -1 if low else 1
    reached = [p["at"] for p in points if p.get(name) is not None and sign * (p[name] - level) >= 0]
    return min([*reached, *crossings(points, name, level)], default=None)


def level_of(points: Points, keep: float) -> float:
    """Returns the accuracy on held-out probes to retain at which `keep` of the untouched model's is left.

    The untouched model's is 1 where answers are given token by token. A generated answer that is right may be worded
    otherwise than the probe's, so there it may be less.
    """
    start = points[0].get("held_out_retained") if points and points[0]["at"] == 0 else None
    return keep if start is None else float(keep * start)


def at_kept(points: Points, keep: float) -> float | None:
    """Returns the share at which most is learned while at least `keep` is retained, both on held-out probes."""
    return at_best(points, "held_out_learned", "held_out_retained", level_of(points, keep))


def goal(base: Points, name: str, *, low: bool = False) -> float | None:
    """Returns what the base's whole change reaches; None where that is no better than before, or was not asked."""
    before, after = (base[n].get(name) if base else None for n in (0, -1))
    if before is None or after is None or (after >= before if low else after <= before):
        return None
    return float(after)


def compared(points: Points, base: Points, keep: float, prose: float) -> dict[str, Any]:
    """Returns the numbers that compare an arm with others at equal learning or equal forgetting, and their shares.

    `learned_at_kept`: whole answers learned where most is learned with `keep` of what was known kept.
    `kept_at_plain`: whole answers retained where the arm has first learned as much as the base's whole change.
    `tokens_at_kept`, `kept_tokens_at_plain`: the same of answer tokens.
    `nll_at_prose`: NLL of probes to learn where it is smallest while the bits per byte of prose are at most `prose`
    times the untouched model's. `prose_at_nll`: those bits per byte where the NLL is first as small as after the
    base's whole change. Shares are chosen on held-out probes, numbers are of the others; None where nothing was asked.
    `not_reached` names the numbers whose target no share reaches.
    """
    bits = points[0].get("bits_per_byte") if points else None
    learned, nll = goal(base, "held_out_learned"), goal(base, "held_out_learned_nll", low=True)
    limit = None if bits is None else bits * prose
    shares = {
        "at_kept": at_kept(points, keep),
        "at_plain": None if learned is None else at_first(points, "held_out_learned", learned),
        "at_prose": None
        if limit is None
        else at_best(points, "held_out_learned_nll", "bits_per_byte", limit, low=True),
        "at_nll": None if nll is None else at_first(points, "held_out_learned_nll", nll, low=True),
    }
    aims = {"at_plain": learned, "at_nll": nll}
    lost = {at for at, aim in aims.items() if points and aim is not None and shares[at] is None}
    return {
        **shares,
        **{name: interpolated(points, shares[at], number) for name, (number, at) in COMPARED.items()},
        "not_reached": [name for name, (_, at) in COMPARED.items() if at in lost],
    }
