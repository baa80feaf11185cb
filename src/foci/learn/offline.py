"""Runs the offline halves of an arm's methods."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foci.config.run import Run
from foci.focus import Context, Plan, Prepares, Row
from foci.methods import build


def plan_of(run: Run, arm: str) -> Plan:
    """The plan of one arm, before its offline halves have run."""
    return Plan([build(spec) for spec in run.arms[arm]], normalise=run.train.normalise)


def prepare(plan: Plan, context: Context) -> tuple[Plan, Sequence[Row]]:
    """Runs the offline halves, one after another: the plan of the online halves, and the rows they will read."""
    online, rows = [], context.rows
    for number, method in enumerate(plan.methods):
        if isinstance(method, Prepares):
            folder = own_folder(context, number, method)
            folder.mkdir(parents=True, exist_ok=True)
            method, rows = method.prepare(replace(context, rows=rows, folder=folder))  # noqa: PLW2901
        online.append(method)
    return Plan(online, normalise=plan.normalise), rows


def own_folder(context: Context, number: int, method: Prepares) -> Path:
    """Where the method that stands in a plan at `number` keeps what its offline half makes."""
    return context.folder / f"{number}-{type(method).__name__.lower()}"
