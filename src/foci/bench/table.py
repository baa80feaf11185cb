"""The data of a suite's tables: means, intervals and paired differences over seeds, by arm."""

from collections.abc import Mapping, Sequence
from typing import Any

from foci.bench.cells import Cell
from foci.bench.config import MATCHED, Suite
from foci.bench.points import COSTS, METRICS, Point, chosen, points, top
from foci.bench.slider import along
from foci.learn.baseline import Start
from foci.learn.offline import plan_of
from foci.learn.questions import is_to_learn, without_held_out
from foci.learn.stopping import probes_decide
from foci.probes import Answer, summarise
from foci.probes.intervals import CONFIDENCE, as_data, difference, interval
from foci.system.files import read_json
from foci.system.run_folder import RunFolder

PLACES = ("chosen", "end")
"""The points of a cell that are compared: the one chosen on held-out probes, and the last."""
TOP = ("learned_whole", "retained_whole", "learned", "retained", "total", "step")
"""The metrics that are shown of the top over epochs."""

Measured = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By arm and seed: {"path", "chosen", "end", "top", "slide", "peak_memory_mib"}."""


def measure(cells: Sequence[Cell]) -> dict[str, dict[int, dict[str, Any]]]:
    """Reads what the finished cells measured."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for cell in cells:
        folder = RunFolder(cell.run.output, 1).arm(cell.arm)
        path = points(folder)
        found.setdefault(cell.arm, {})[cell.seed] = {
            "path": path,
            "chosen": chosen(path),
            "end": path[-1],
            "top": top(path),
            "slide": cell.curve(),
            "peak_memory_mib": read_json(folder.result)["peak_memory_mib"],
        }
    return found


def table(
    suite: Suite,
    starts: Mapping[int, Start],
    measured: Measured,
    failures: Mapping[str, str],
    unfinished: Sequence[str] = (),
) -> dict[str, Any]:
    """Computes all numbers of the tables, figures and the page.

    `failures` are reasons by the name of a cell; `unfinished` are the names of cells that were not run to their end.
    """
    first = starts[suite.seeds[0]]
    base = measured.get(suite.baseline or "", {})
    return {
        "name": suite.name,
        "model": suite.model.name,
        "seeds": list(suite.seeds),
        "confidence": CONFIDENCE,
        "match": suite.match,
        "matched": MATCHED[suite.match],
        "baseline": suite.baseline,
        "chosen_on": chosen_on(first.answers, first.texts),
        "probed_every": suite.probes.every,
        "questions": questions(first.answers),
        "questions_by_seed": _differ([one.answers for one in starts.values()]),
        "controls": _controls([one.answers for one in starts.values()]),
        "untouched": _untouched(measured),
        "arms": {
            arm: {
                "methods": [repr(method) for method in plan_of(suite, arm).methods],
                "train": _own(suite.overrides.get(arm, {})),
                **_arm(by_seed, {} if arm == suite.baseline else base, suite.seeds),
            }
            for arm in suite.arms
            if (by_seed := measured.get(arm))
        },
        "slide": along(suite, measured, frozenset(p.kind for p in first.questions.probes if is_to_learn(p))),
        "failures": dict(failures),
        "unfinished": list(unfinished),
    }


def _own(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an arm's own settings, those of its adapter as `adapter.KEY`."""
    adapter = changes.get("adapter", {})
    rest = {key: value for key, value in changes.items() if key != "adapter"}
    if adapter is None:
        return {**rest, "adapter": "none"}
    return {**rest, **{f"adapter.{key}": value for key, value in adapter.items()}}


def chosen_on(answers: Sequence[Answer], texts: Mapping[str, Any]) -> str:
    """Names what the chosen point was chosen on.

    It is `held_out`, `held_out_learn`, `held_out_retain`, `held_out_text` or `end`.
    """
    if not probes_decide(answers, texts):
        return "end" if texts.get("held_out_bits_per_byte") is None else "held_out_text"
    roles = sorted({a.role for a in answers if a.held_out and a.counted})
    return "held_out" if len(roles) == 2 else f"held_out_{roles[0]}"


def questions(answers: Sequence[Answer]) -> dict[str, int]:
    """Counts the probes to learn and to retain, reported and held out; `retain` are those that count."""
    found = {"learn": 0, "retain": 0, "retain_asked": 0, "held_out_learn": 0, "held_out_retain": 0}
    for answer in answers:
        prefix = "held_out_" if answer.held_out else ""
        found[f"{prefix}{answer.role}"] += answer.counted
        found["retain_asked"] += answer.role == "retain" and not prefix
    return found


def _differ(by_seed: Sequence[Sequence[Answer]]) -> bool:
    """Says whether seeds report other probes."""
    return len({tuple(a.probe_id for a in answers if not a.held_out) for answers in by_seed}) > 1


def _controls(by_seed: Sequence[Sequence[Answer]]) -> dict[str, float | None]:
    """Returns what always giving the majority answer reaches, means over seeds: each may hold out other probes."""
    reported = [without_held_out(answers) for answers in by_seed]
    found: list[Any] = [summarise(answers, answers)["controls"] or {} for answers in reported]
    means = {name: interval([one.get(name) for one in found]) for name in ("majority", "balanced_majority")}
    return {name: mean.mean if mean else None for name, mean in means.items()}


def _untouched(measured: Measured) -> dict[str, float | None]:
    """Returns the untouched model's metrics, means over seeds. Seeds differ in samples and in what is held out."""
    by_seed = {seed: cell["path"][0] for cells in measured.values() for seed, cell in cells.items()}
    found = {name: interval([point[name] for _, point in sorted(by_seed.items())]) for name in METRICS}
    return {name: mean.mean if mean else None for name, mean in found.items()}


def _arm(
    by_seed: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]], seeds: Sequence[int]
) -> dict[str, Any]:
    """Computes an arm's part of the table."""
    there = [seed for seed in seeds if seed in by_seed]

    def values(cells: Mapping[int, Mapping[str, Any]], place: str, name: str) -> list[int | float | None]:
        return [(cells[seed][place] or {}).get(name) if seed in cells else None for seed in there]

    found: dict[str, Any] = {"seeds": there}
    for place in PLACES:
        found[place] = {
            name: as_data(interval(values(by_seed, place, name)))
            | {"difference": as_data(difference(values(by_seed, place, name), values(base, place, name))) or None}
            | {"values": values(by_seed, place, name)}
            for name in (*METRICS, *COSTS)
        }
    found["top"] = {name: as_data(interval(values(by_seed, "top", name))) for name in TOP}
    found["peak_memory_mib"] = as_data(interval([by_seed[seed]["peak_memory_mib"] for seed in there]))
    found["path"] = _path([by_seed[seed]["path"] for seed in there])
    return found


def _path(paths: Sequence[Sequence[Point]]) -> list[dict[str, Any]]:
    """Computes means and intervals over seeds at every step that all seeds probed, and at the end.

    Where seeds end at different updates (equal tokens, edits by chance), the step of the end is their mean.
    """
    steps = [{point["step"]: point for point in path} for path in paths]
    common = sorted(set.intersection(*(set(by_step) for by_step in steps)))
    found: list[tuple[float, list[Point]]] = [(step, [by_step[step] for by_step in steps]) for step in common]
    if len({path[-1]["step"] for path in paths}) > 1:
        ends = [path[-1] for path in paths]
        found = [one for one in found if one[0] < min(end["step"] for end in ends)]
        found.append((sum(end["step"] for end in ends) / len(ends), ends))
    names = ("learned_whole", "retained_whole", "total_whole", "learned", "retained", "total", "bits_per_byte")
    return [
        {"step": step, **{name: as_data(interval([point[name] for point in some])) for name in names}}
        for step, some in found
    ]
