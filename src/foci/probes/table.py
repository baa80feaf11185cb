"""Stores answers (parquet, one row per probe), and compares answers before and after training."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foci.probes.asking import Answer
from foci.probes.controls import balanced, balanced_majority, majority
from foci.probes.perplexity import span_perplexity
from foci.probes.probe import kind_of
from foci.system.files import replacing

_TYPES = {
    "correct": pa.bool_(), "counted": pa.bool_(), "held_out": pa.bool_(), "accuracy": pa.float64(),
    "exact_match": pa.float64(), "f1": pa.float64(), "nll": pa.float64(), "squad_exact_match": pa.float64(),
    "squad_f1": pa.float64(),
}  # fmt: skip

Change = dict[str, float]
"""{"before": .., "after": ..}"""


def counted_by(baseline: Sequence[Answer], answers: Sequence[Answer]) -> list[Answer]:
    """Returns `answers` with `counted` set: True for probes to learn, and to retain where `baseline` was correct.

    Both must hold the same probes, in any order.
    """
    known = {(a.role, a.probe_id): a for a in baseline}
    asked = [(a.role, a.probe_id) for a in answers]
    if len(known) != len(baseline) or len(set(asked)) != len(asked):
        raise ValueError("a probe stands twice in one table; give every probe of a role its own id")
    if odd := sorted(set(asked) ^ known.keys()):
        raise ValueError(
            f"baseline and answers must be of the same probes, got {len(baseline)} and {len(answers)}; "
            f"only one side has {' '.join(odd[0])}; ask both the same probes"
        )
    return [replace(a, counted=a.role == "learn" or known[a.role, a.probe_id].correct) for a in answers]


def write_answers(path: str | Path, answers: Sequence[Answer], baseline: Sequence[Answer] | None = None) -> None:
    """Writes a probe table (parquet), all or nothing. `baseline=None`: the answers are the baseline."""
    path = Path(path)
    rows = counted_by(answers if baseline is None else baseline, answers)
    schema = pa.schema([(f.name, _TYPES.get(f.name, pa.string())) for f in fields(Answer)])
    with replacing(path) as part:
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), part)


def read_answers(path: str | Path) -> list[Answer]:
    """Reads the answers that `write_answers` wrote.

    A table without the column `held_out` is of an earlier version, in which the id of a held-out probe began with
    "held_out/"; without `squad_exact_match`, of one that counted exact match and F1 by SQuAD's rule. Raises
    FileNotFoundError where there is no table, ValueError for one with other columns.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no probe table {path}; `foci probe` or a run writes one")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: it is no whole parquet table ({error}); make it again") from None
    expected = [f.name for f in fields(Answer)]
    if {"probe_id", "exact_match", "f1"} <= set(table.column_names):
        table = _of_earlier(table)
    if sorted(table.column_names) != sorted(expected):
        raise ValueError(
            f"{path}: expected the columns {', '.join(expected)}, got {', '.join(table.column_names)}; "
            "it is no probe table of this version"
        )
    return [Answer(**row) for row in table.to_pylist()]


def _of_earlier(table: pa.Table) -> pa.Table:
    """Returns the table with the columns that earlier versions did not write."""
    if "held_out" not in table.column_names:
        ids = table.column("probe_id").to_pylist()
        table = table.append_column("held_out", pa.array([str(name).startswith("held_out/") for name in ids]))
    for name in ("exact_match", "f1"):
        if f"squad_{name}" not in table.column_names:
            table = table.append_column(f"squad_{name}", table.column(name))
    return table


def summarise(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, object]:
    """Returns what was learned and retained, before and after: whole answers that are right, and answer tokens.

    `before` is the frozen baseline and decides which probes to retain count. Keys: learned_whole, retained_whole (the
    share of whole answers that are right; None where there is no such probe), learned, retained (the share of answer
    tokens, given the true words before), learned_by_kind, span_perplexity (of updated and unchanged, micro and macro),
    retained_probes (how many count), retain_asked, learn_probes, controls (of the accuracy on probes to learn; None
    without any; `untouched_model` is the baseline's).
    """
    matched = {(a.role, a.probe_id): a for a in counted_by(before, after)}
    pairs = [(b, matched[b.role, b.probe_id]) for b in counted_by(before, before)]
    learn = [pair for pair in pairs if pair[0].role == "learn"]
    retain = [pair for pair in pairs if pair[0].role == "retain"]
    kept = [pair for pair in retain if pair[0].counted]
    return {
        "learned_whole": _change(learn, _correct),
        "retained_whole": _change(kept, _correct),
        "learned": _change(learn, _accuracy),
        "retained": _change(kept, _accuracy),
        "learned_by_kind": {
            kind: _by_kind([p for p in learn if p[0].kind == kind]) for kind in sorted({b.kind for b, _ in learn})
        },
        "span_perplexity": _perplexities(before, after),
        "retained_probes": len(kept),
        "retain_asked": len(retain),
        "learn_probes": len(learn),
        "controls": _controls(learn),
    }


def _accuracy(answer: Answer) -> float:
    return answer.accuracy


def _correct(answer: Answer) -> float:
    return float(answer.correct)


def _change(pairs: Sequence[tuple[Answer, Answer]], score: Callable[[Answer], float]) -> Change | None:
    """Returns the means of a number before and after; None without answers."""
    if not pairs:
        return None
    count = len(pairs)
    return {"before": sum(score(b) for b, _ in pairs) / count, "after": sum(score(a) for _, a in pairs) / count}


def _by_kind(pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, Change | None]:
    made = {
        "whole": _change(pairs, _correct),
        "accuracy": _change(pairs, _accuracy),
        "nll": _change(pairs, lambda answer: answer.nll),
    }
    if kind_of(pairs[0][0].kind).generated:
        made["exact_match"] = _change(pairs, lambda answer: answer.exact_match or 0.0)
        made["f1"] = _change(pairs, lambda answer: answer.f1 or 0.0)
        made["squad_exact_match"] = _change(pairs, lambda answer: answer.squad_exact_match or 0.0)
    return made


def _perplexities(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, dict[str, Change] | None]:
    then, now = span_perplexity(before), span_perplexity(after)
    return {
        side: {name: {"before": was[name], "after": now_is[name]} for name in was}
        if (was := then[side]) and (now_is := now[side])
        else None
        for side in then
    }


def _controls(learn: Sequence[tuple[Answer, Answer]]) -> dict[str, object] | None:
    if not learn:
        return None
    probes = [b for b, _ in learn]
    return {
        "majority": majority(probes),
        "balanced": {
            "before": balanced(probes, [b.accuracy for b, _ in learn]),
            "after": balanced(probes, [a.accuracy for _, a in learn]),
        },
        "balanced_whole": {
            "before": balanced(probes, [_correct(b) for b in probes]),
            "after": balanced(probes, [_correct(a) for _, a in learn]),
        },
        "balanced_majority": balanced_majority(probes),
        "untouched_model": sum(b.accuracy for b in probes) / len(probes),
    }
