"""The answers along every cell's change: the mean curve of each arm, and the numbers that compare arms."""

from collections.abc import Mapping, Sequence
from typing import Any

from foci.bench.config import Suite
from foci.probes.intervals import as_data, difference, interval
from foci.slide.curve import COMPARED, compared

DRAWN = ("learned_whole", "retained_whole", "learned", "retained", "learned_nll", "bits_per_byte")
"""The numbers of a curve that tables and figures show, of the reported probes."""

Measured = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By arm and seed, with the points of the curve as "slide"."""


def along(suite: Suite, measured: Measured, kinds: frozenset[str]) -> dict[str, Any] | None:
    """Computes the slider's part of the table; None where the suite has none. `kinds` are those of probes to learn.

    Every seed is compared by itself: its arm with its baseline. Means, intervals and paired differences are of these
    numbers. A seed whose target no share reaches has no number; `not_reached` names it.
    """
    if suite.slide is None:
        return None
    base = measured.get(suite.baseline or "", {})
    return {
        **suite.slide.model_dump(mode="json"),
        "points": list(suite.slide.shares),
        "by": suite.slide.by or ("nll" if kinds == {"span"} else "answers"),
        "arms": {
            arm: _arm(suite, by_seed, {} if arm == suite.baseline else base, base) for arm, by_seed in measured.items()
        },
    }


def _arm(
    suite: Suite,
    by_seed: Mapping[int, Mapping[str, Any]],
    others: Mapping[int, Mapping[str, Any]],
    base: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    """Computes an arm's part: `others` are the cells that differences are from, `base` those that set the targets."""
    assert suite.slide is not None
    there = [seed for seed in suite.seeds if seed in by_seed]
    found = [_compared(suite, by_seed, base, seed) for seed in there]
    plain = [_compared(suite, others, base, seed) for seed in there]
    curves = [{point["at"]: point for point in by_seed[seed]["slide"]} for seed in there]
    return {
        "seeds": there,
        "curve": [
            {"at": share, **{n: as_data(interval([c.get(share, {}).get(n) for c in curves])) for n in DRAWN}}
            for share in suite.slide.shares
        ],
        **{
            name: as_data(interval([one[name] for one in found]))
            | {"difference": as_data(difference([o[name] for o in found], [o[name] for o in plain])) or None}
            | {"values": [one[name] for one in found], "shares": [one[at] for one in found]}
            | {"not_reached": [seed for seed, one in zip(there, found, strict=True) if name in one["not_reached"]]}
            for name, (_, at) in COMPARED.items()
        },
    }


def _compared(
    suite: Suite, cells: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]], seed: int
) -> dict[str, Any]:
    """Compares the curve of one seed with the baseline's of the same seed; all None where one of them is not there."""
    assert suite.slide is not None
    own, plain = (_curve(cells, seed), _curve(base, seed))
    return compared(own, plain, suite.slide.keep, suite.slide.prose)


def _curve(cells: Mapping[int, Mapping[str, Any]], seed: int) -> Sequence[Mapping[str, Any]]:
    """Returns the points of a seed's curve, none where its cell is not there."""
    points: Sequence[Mapping[str, Any]] = cells[seed]["slide"] if seed in cells else ()
    return points
