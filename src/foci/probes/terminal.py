"""Answers on the terminal."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from foci.probes.asking import Answer
from foci.probes.table import summarise


def print_answers(answers: Sequence[Answer], binding: float | None, console: Console) -> None:
    """Prints a table of a model's answers by role and kind, and the controls of the learn probes with `binding`."""
    table = Table(box=None, pad_edge=False)
    for head in ("role", "kind", "probes", "accuracy", "all right", "nll (nats)", "exact match", "F1"):
        table.add_column(head, justify="left" if head in ("role", "kind") else "right")
    for role, kind in sorted({(a.role, a.kind) for a in answers}):
        some = [a for a in answers if (a.role, a.kind) == (role, kind)]
        extra = [_mean([a.exact_match for a in some]), _mean([a.f1 for a in some])] if kind == "qa" else ["", ""]
        shares = [
            _mean([a.accuracy for a in some]),
            _mean([float(a.correct) for a in some]),
            _mean([a.nll for a in some]),
        ]
        table.add_row(role, kind, str(len(some)), *shares, *extra)
    console.print(table, highlight=False)
    if controls := summarise(answers, answers)["controls"]:
        told = json.dumps({**controls, "binding": binding and round(binding, 3)})  # type: ignore[dict-item]
        console.print(f"controls of the learn probes: {told}", highlight=False, markup=False)


def _mean(values: Sequence[Any]) -> str:
    return f"{sum(v or 0.0 for v in values) / len(values):.3f}"
