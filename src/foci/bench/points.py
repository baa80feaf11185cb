"""The measurements of a finished cell: one point per probed step, and the points that tables report."""

from collections.abc import Sequence
from typing import Any

from foci.learn.questions import without_held_out
from foci.learn.stopping import score
from foci.probes import Answer, balanced, read_answers, span_perplexity
from foci.system.files import read_lines
from foci.system.run_folder import ArmFolder

Point = dict[str, Any]
"""step, tokens, seconds, and by name what was measured there (None where nothing was asked)."""

METRICS = (
    "learned_whole", "retained_whole", "total_whole", "learned", "retained", "total", "learned_nll", "retained_nll",
    "bits_per_byte", "corpus_bits_per_byte", "balanced", "binding", "updated_micro", "updated_macro",
    "unchanged_micro", "unchanged_macro",
)  # fmt: skip
"""`learned_whole`, `retained_whole`: shares of whole answers that are right; `learned`, `retained`: of answer tokens;
`total_whole`, `total`: their sums. NLL in nats per answer token; `balanced` = learned with all answers alike; the
others are `span_perplexity`."""
COSTS = ("step", "tokens", "seconds")


def points(folder: ArmFolder) -> list[Point]:
    """Returns a point for every probed step of an arm, in order; step 0 is the untouched model."""
    costs = {line["step"]: line for line in read_lines(folder.metrics)}
    found = []
    for line in sorted(read_lines(folder.texts), key=lambda line: int(line["step"])):
        step = line["step"]
        table = folder.probes(step)
        answers = read_answers(table) if table.exists() else []
        spent = costs.get(step, {"tokens": 0, "seconds": 0.0})
        found.append(
            {
                "step": step,
                "tokens": spent["tokens"],
                "seconds": spent["seconds"],
                **measured(answers),
                "held_out_score": score(answers, line),
                "bits_per_byte": line["bits_per_byte"],
                "corpus_bits_per_byte": line["corpus_bits_per_byte"],
                "binding": line.get("binding"),
            }
        )
    return found


def measured(answers: Sequence[Answer]) -> Point:
    """Computes the metrics of one table of answers, of the reported probes and of the held-out ones."""
    open_, held = without_held_out(answers), [a for a in answers if a.held_out]
    learn, retain = _of(open_, "learn"), _of(open_, "retain")
    found = {
        "learned_whole": _mean([a.correct for a in learn]),
        "retained_whole": _mean([a.correct for a in retain]),
        "learned": _mean([a.accuracy for a in learn]),
        "retained": _mean([a.accuracy for a in retain]),
        "learned_nll": _mean([a.nll for a in learn]),
        "retained_nll": _mean([a.nll for a in retain]),
        "balanced": balanced(learn, [a.accuracy for a in learn]) if learn else None,
        "held_out_learned": _mean([a.accuracy for a in _of(held, "learn")]),
        "held_out_retained": _mean([a.accuracy for a in _of(held, "retain")]),
    }
    sides = span_perplexity(open_)
    perplexities = {f"{side}_{how}": (sides[side] or {}).get(how) for side in sides for how in ("micro", "macro")}
    totals = {f"total{end}": _sum(found[f"learned{end}"], found[f"retained{end}"]) for end in ("_whole", "")}
    return {**found, **perplexities, **totals}


def chosen(path: Sequence[Point]) -> Point:
    """Returns the trained point that is best by what is held out (`foci.learn.stopping.score`), the first of equals.

    Where nothing is held out it is the last point.

    Where only probes to learn, or only probes to retain, are held out and count, these decide alone.
    """
    trained = [point for point in path if point["step"] > 0]
    known = [point for point in trained if point["held_out_score"] is not None]
    return max(known, key=lambda p: (p["held_out_score"], -p["step"])) if known else trained[-1]


def top(path: Sequence[Point]) -> Point | None:
    """Returns the trained point with the highest `learned`, the first of equals: as published, chosen on the test."""
    known = [point for point in path if point["step"] > 0 and point["learned"] is not None]
    return max(known, key=lambda p: (p["learned"], -p["step"])) if known else None


def _of(answers: Sequence[Answer], role: str) -> list[Answer]:
    return [a for a in answers if a.role == role and a.counted]


def _mean(values: Sequence[int | float]) -> float | None:
    return sum(values) / len(values) if values else None


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
