"""The table of a pretraining: the last losses of all arms, and how soon they reach the baseline's, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from foci.pretrain.config import Pretraining
from foci.probes.intervals import CONFIDENCE, as_data, difference, interval, ratio
from foci.report import tables

Curve = Sequence[Mapping[str, Any]]
"""Validations in order: step, seconds, nats, bits_per_byte."""
MEASURES = ("nats", "bits_per_byte")
HEADS = ("arm", "nats per token", "difference", "bits per byte", "steps", "seconds")


def reached(curve: Curve, nats: float, along: str = "step") -> float | None:
    """Returns the first step (or `along` "seconds") at which a curve is at `nats` or below; None where it never is.

    Between two validations the curve is a straight line.

    >>> curve = [{"step": 0, "nats": 8.0}, {"step": 10, "nats": 6.0}, {"step": 20, "nats": 5.0}]
    >>> reached(curve, 5.5), reached(curve, 4.0)
    (15.0, None)
    """
    before: Mapping[str, Any] | None = None
    for point in curve:
        if point["nats"] <= nats:
            if before is None:
                return float(point[along])
            part = (before["nats"] - nats) / (before["nats"] - point["nats"])
            return float(before[along] + part * (point[along] - before[along]))
        before = point
    return None


def table(run: Pretraining, curves: Mapping[str, Mapping[int, Curve]]) -> dict[str, Any]:
    """Returns, per arm over the seeds of which it has a curve, the last loss and how it compares with another arm's.

    The other arm is `run.baseline`. Compared are the last losses (a difference), and how soon the arm reaches the
    other's last loss: updates and seconds, as shares of those at which the other first reaches it.
    """
    base = curves.get(run.baseline or "", {})
    return {
        "name": run.name,
        "objective": run.objective,
        "baseline": run.baseline,
        "confidence": CONFIDENCE,
        "seeds": list(run.seeds),
        "arms": {
            arm: _arm(run, by_seed, base if arm != run.baseline else {})
            for arm in run.arms
            if (by_seed := curves.get(arm))
        },
    }


def _arm(run: Pretraining, by_seed: Mapping[int, Curve], base: Mapping[int, Curve]) -> dict[str, Any]:
    seeds = [seed for seed in run.seeds if seed in by_seed]
    found: dict[str, Any] = {"seeds": seeds}
    found["seconds_per_step"] = as_data(interval([by_seed[s][-1]["seconds"] / by_seed[s][-1]["step"] for s in seeds]))
    for name in MEASURES:
        values = [by_seed[seed][-1][name] for seed in seeds]
        rivals = [base[seed][-1][name] if seed in base else None for seed in seeds]
        found[name] = {**as_data(interval(values)), "difference": as_data(difference(values, rivals)), "values": values}
    for along in ("step", "seconds"):
        alike = [seed for seed in seeds if seed in base and begin_above(by_seed[seed], base[seed])]
        shares = [share(by_seed[seed], base[seed], along) for seed in alike]
        found[f"{along}_ratio"] = {**as_data(ratio(shares)), "values": shares}
    found["curve"] = mean_curve([by_seed[seed] for seed in seeds])
    return found


def share(curve: Curve, base: Curve, along: str) -> float | None:
    """Returns where a curve reaches the base's last loss, over where the base does; None where it never does."""
    end = base[-1]["nats"]
    mine, theirs = reached(curve, end, along), reached(base, end, along)
    return None if not mine or not theirs else mine / theirs


def begin_above(curve: Curve, base: Curve) -> bool:
    """Returns whether both curves begin above the base's last loss; where one does not, it is there at update 0."""
    return min(curve[0]["nats"], base[0]["nats"]) > base[-1]["nats"]


def mean_curve(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Computes means over seeds at every step that all of them validated."""
    steps = [{point["step"]: point for point in curve} for curve in curves]
    common = sorted(set.intersection(*(set(by_step) for by_step in steps)))
    return [
        {
            "step": step,
            "seconds": sum(by_step[step]["seconds"] for by_step in steps) / len(steps),
            **{name: as_data(interval([by_step[step][name] for by_step in steps])) for name in MEASURES},
        }
        for step in common
    ]


def markdown(found: Mapping[str, Any]) -> str:
    """Returns the table in Markdown."""
    base = found["baseline"]
    shown = {arm: cells(arm, of) for arm, of in found["arms"].items()}
    rows = [
        [*shown[arm][:1], str(len(of["seeds"])), *shown[arm][1:], words(of["seconds_per_step"])]
        for arm, of in found["arms"].items()
    ]
    lines = [
        f"# {tables.marked(found['name'])}",
        "",
        f"Held-out loss after the last update, {found['objective']} objective; means over seeds, "
        f"{found['confidence']:.0%} t intervals, differences from {base or 'nothing'} paired by seed. Steps and "
        f"seconds are those to {base or 'the baseline'}'s last loss, as a share of its own (geometric means); empty "
        "where it ends no lower than it began. Seconds are of training alone.",
        "",
        tables.markdown(tables.Table([*HEADS[:1], "seeds", *HEADS[1:], "seconds per step"], rows)),
        "",
    ]
    return "\n".join(lines)


def cells(arm: str, of: Mapping[str, Any]) -> list[str]:
    """Returns an arm's line of the table, under `HEADS`."""
    return [
        arm, words(of["nats"]), words(of["nats"]["difference"], signed=True), words(of["bits_per_byte"]),
        share_words(of["step_ratio"]), share_words(of["seconds_ratio"]),
    ]  # fmt: skip


def words(mean: Mapping[str, Any], *, signed: bool = False) -> str:
    """Writes a mean and its interval with three decimals; empty where there is no mean."""
    if not mean or "mean" not in mean:
        return ""
    sign = "+" if signed else ""
    ends = "" if mean["low"] is None else f" [{mean['low']:{sign}.3f}, {mean['high']:{sign}.3f}]"
    return f"{mean['mean']:{sign}.3f}{ends}".replace("-", "−")  # noqa: RUF001


def share_words(of: Mapping[str, Any]) -> str:
    """Writes a share, and how many seeds never got there: a mean over the others alone would flatter."""
    values = of["values"]
    missing = sum(value is None for value in values)
    if not values:
        return ""
    if missing == len(values):
        return "never"
    return words(of) + (f" ({missing} of {len(values)} never)" if missing else "")
