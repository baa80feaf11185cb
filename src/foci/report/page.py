"""The data of a run's page: runs and arms as plain dictionaries, figures, probe rows, coloured tokens."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from foci.report import guided, layers, plots
from foci.report.batches import NOTE as BATCHES_NOTE
from foci.report.batches import page_tables
from foci.report.contrast import contrasts
from foci.report.glance import EXAMPLES, flipped, glance, picture
from foci.report.measure import Answer, Evidence, best_arm, by_probe, reasons, rows_read, verdict, why_not
from foci.report.read import Arm, Run
from foci.report.tokens import samples, short, spread
from foci.report.warnings import warnings_of
from foci.report.words import sentence
from foci.system.harmless import visible

UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}

LOSS_NOTE = (
    "Weighted nats per token, as trained: arms that weigh tokens differently average over different tokens, "
    "so compare the shape, not the height, between arms."
)


def script_json(value: Any) -> Markup:
    """Returns `value` as JSON that is safe inside a script element: no character of it can end or open a tag."""
    text = json.dumps(_shown(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(UNSAFE))  # noqa: S704 - escaped in the line itself


def _shown(value: Any) -> Any:
    """Returns a value as the page shows it: numbers finite, texts harmless."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(k)): _shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def labels(runs: Sequence[Run]) -> list[str]:
    """Returns names of the runs, all different: a name that occurs twice is followed by its folder, then a number."""
    names = [run.name for run in runs]
    names = [n if names.count(n) == 1 else f"{n} ({r.folder.resolve().name})" for n, r in zip(names, runs, strict=True)]
    return [n if names.count(n) == 1 else f"{n} #{names[: i + 1].count(n)}" for i, n in enumerate(names)]


def named_arms(runs: Sequence[Run]) -> list[tuple[str, Arm]]:
    """Returns every arm with its name in the report: `arm`, or `run/arm` where there are several runs."""
    return [pair for some in _by_run(runs) for pair in some]


def _by_run(runs: Sequence[Run]) -> list[list[tuple[str, Arm]]]:
    """Returns the arms of each run with their names in the report."""
    if len(runs) == 1:
        return [[(arm.name, arm) for arm in runs[0].arms]]
    return [[(f"{label}/{arm.name}", arm) for arm in run.arms] for label, run in zip(labels(runs), runs, strict=True)]


def context(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns everything that the template asks for."""
    arms = named_arms(runs)
    rows, top = samples(arms)
    evidence = {name: run.evidence for run, some in zip(runs, _by_run(runs), strict=True) for name, _ in some}
    return {
        "title": ", ".join(labels(runs)),
        "glances": [
            glance(label, some, max(1, EXAMPLES // len(runs)))
            for label, some in zip(labels(runs), _by_run(runs), strict=True)
            if some
        ],
        "picture": picture([(name, arm.numbers) for name, arm in arms]),
        "runs": [_run(label, run) for label, run in zip(labels(runs), runs, strict=True)],
        "arms": [
            {
                "index": index,
                "name": name,
                "methods": arm.methods,
                "numbers": arm.numbers,
                "sentence": sentence(arm.numbers),
                "warnings": warnings_of(arm.numbers),
                "points": arm.points,
            }
            for index, (name, arm) in enumerate(arms)
        ],
        "kinds": [row for index, (name, arm) in enumerate(arms) for row in _kinds(index, name, arm)],
        "figures": [*along_the_change(runs), *figures(arms)],
        "probes": script_json(probe_table(arms, evidence)),
        "reasons": _reasons(arms, evidence),
        "batches": page_tables([(name, arm.numbers) for name, arm in arms]),
        "batches_note": BATCHES_NOTE,
        "layers": layers.section([(name, arm.profiles) for name, arm in arms]),
        "probe_count": sum(len(arm.before or arm.after) for _, arm in arms),
        "samples": rows,
        "nll_top": top,
        "spread": spread([(name, arm.samples) for name, arm in arms]),
        "contrasts": contrasts(runs, labels(runs)),
    }


def _run(label: str, run: Run) -> dict[str, Any]:
    return run.facts | {"name": label, "notices": run.notices, "notes": run.notes, "yaml": run.run_yaml}


def _kinds(index: int, name: str, arm: Arm) -> list[dict[str, Any]]:
    kinds = arm.numbers.get("learned_by_kind") or {}
    return [{"index": index, "name": name, "kind": kind, "results": results} for kind, results in kinds.items()]


def figures(arms: Sequence[tuple[str, Arm]]) -> list[dict[str, Any]]:
    """Returns the figures that have at least one point: `title`, `note` and `svg`."""
    paths = [(name, arm.points) for name, arm in arms]
    found: list[dict[str, Any]] = [
        {
            "title": "Learned against retained",
            "note": "One path per arm from the untouched model; points are labelled by step. Up and right is better.",
            "svg": plots.learned_against_retained(paths),
        }
    ]
    wanted: tuple[tuple[str, plots.Unit, str, str], ...] = (
        ("learned_whole", "percent", "Learned over steps", "% of whole answers right, to learn. Higher is better."),
        ("retained_whole", "percent", "Retained over steps", "% of what the untouched model knew. Higher is better."),
        ("learned", "percent", "Answer tokens over steps", "% of the answer tokens to learn. Higher is better."),
        ("bits_per_byte", "bits", "General text over steps", "Bits per byte of general text. Lower is better."),
        ("corpus_bits_per_byte", "bits", "The corpus over steps", "Bits per byte of the corpus. Lower is better."),
    )
    for key, unit, title, note in wanted:
        lines = [plots.line(name, i, points, key) for i, (name, points) in enumerate(paths)]
        found.append({"title": title, "note": note, "svg": plots.over_steps(lines, unit, title, key)})
    found.append(_loss(arms))
    heads = [figure for i, (name, arm) in enumerate(arms) for figure in guided.figures(name, i, arm.guided, arm.maps)]
    return [figure for figure in [*found, *heads] if figure["svg"] is not None]


def along_the_change(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns the figure of what `foci slide` asked, none where no run was slid."""
    slides = [(label, run.slide.get("arms") or {}) for label, run in zip(labels(runs), runs, strict=True)]
    paths = [
        (name if len(runs) == 1 else f"{label}/{name}", arm.get("points") or [])
        for label, arms in slides
        for name, arm in arms.items()
    ]
    svg = plots.learned_against_retained(paths, "at") if paths else None
    if svg is None:
        return []
    note = (
        "Each arm with only a share of the change that training made, from the untouched model to the trained one; "
        "points are labelled by the share. Probes that choose a point are not in it. Up and right is better."
    )
    return [{"title": "Along the change", "note": note, "svg": svg}]


def _loss(arms: Sequence[tuple[str, Arm]]) -> dict[str, Any]:
    thinned = [plots.thin(plots.line(name, i, arm.metrics, "loss")) for i, (name, arm) in enumerate(arms)]
    size = max((n for _, n in thinned), default=1)
    note = LOSS_NOTE + (f" Each point is the mean of {size} updates." if size > 1 else "")
    title = "Training loss over steps"
    svg = plots.over_steps([curve for curve, _ in thinned], "nats", title, "loss", marked=False)
    return {"title": title, "note": note, "svg": svg}


def _reasons(arms: Sequence[tuple[str, Arm]], evidence: Mapping[str, Mapping[str, Evidence]]) -> list[dict[str, Any]]:
    """Returns, of each arm with an after, its name, its place, and its wrong answers to learn by the reason."""
    found = [
        {"index": i, "name": name, "counts": reasons(arm.before, arm.after, evidence[name], _read(arm))}
        for i, (name, arm) in enumerate(arms)
        if arm.before and arm.after
    ]
    return found if any(line["counts"] for line in found) else []


def _read(arm: Arm) -> frozenset[str] | None:
    """Returns the rows that the model which was asked had read; None where that is not known."""
    return rows_read(arm.metrics, arm.last_step)


def _outcome(was: Answer | None, now: Answer | None, evidence: Evidence, read: frozenset[str] | None) -> str:
    """Returns the verdict of a probe; of one to learn that is not answered, the reason."""
    found = verdict(was, now)
    if was is None or now is None or found not in ("still wrong", "forgotten") or was.get("role") != "learn":
        return found
    return why_not(was, now, evidence, read) if found == "still wrong" else found


def probe_table(
    arms: Sequence[tuple[str, Arm]], evidence: Mapping[str, Mapping[str, Evidence]] | None = None
) -> dict[str, Any]:
    """Returns probe rows for the page's script. Texts are stored once: a row holds their numbers in `texts`.

    A row: arm, role, kind, group, prompt, answer, said before, said after, outcome, id, evidence, its source (numbers
    in `texts`), then NLL before, NLL after (nats per answer token), and 1 if the probe counts. Those whose outcome
    changed come first, and among them those of the arm that is best.
    """
    texts: dict[str, int] = {}

    def intern(value: Any) -> int:
        return texts.setdefault("" if value is None else str(value), len(texts))

    best = best_arm({name: arm.numbers for name, arm in arms}) if arms else ""
    rows: list[tuple[tuple[int, bool], list[Any]]] = []
    for name, arm in arms:
        before, after = by_probe(arm.before), by_probe(arm.after)
        read = _read(arm)
        for key in dict.fromkeys([*before, *after]):
            was, now, probe_id = before.get(key), after.get(key), key[1]
            one = was or now or {}
            own = (evidence or {}).get(name, {}).get(str(probe_id), {}) if one.get("role") == "learn" else {}
            role = f"{one.get('role')}, held out" if one.get("held_out") else one.get("role")
            words = [name, role, *(one.get(k) for k in ("kind", "group", "prompt", "answer"))]
            words += [
                (was or {}).get("predicted"),
                (now or {}).get("predicted"),
                _outcome(was, now, own, read),
                probe_id,
            ]
            words += [own.get("evidence"), own.get("source")]
            numbers = [short(a.get("nll") if a else None) for a in (was, now)]
            line = [*map(intern, words), *numbers, int(bool(one.get("counted", True)))]
            rows.append(((flipped(was, now), name != best), line))
    steps = {name: arm.last_step for name, arm in arms}
    return {"texts": list(texts), "rows": [line for _, line in sorted(rows, key=lambda r: r[0])], "steps": steps}
