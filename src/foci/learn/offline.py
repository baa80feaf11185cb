"""Runs the offline stage of an arm's methods: what they compute before the first update."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from transformers import PreTrainedModel

from foci.config.run import Run
from foci.focus import Context, Method, Plan, Prepares, Row
from foci.methods import build


@runtime_checkable
class ChecksModel(Protocol):
    """A method that cannot work with every model."""

    def check_model(self, model: PreTrainedModel) -> None:
        """Raises ValueError where the method cannot work with a model. Quick: asked before anything is trained."""
        ...


@runtime_checkable
class Summarises(Protocol):
    """A prepared method that says in one line for people what its offline stage found."""

    def summary(self) -> str:
        """Returns the line."""
        ...


def plan_of(run: Run, arm: str) -> Plan:
    """Returns the plan of one arm, before its methods are prepared."""
    return Plan([build(spec) for spec in run.arms[arm]], normalise=run.train.normalise)


def check_models(methods: Sequence[Method], model: PreTrainedModel) -> None:
    """Raises ValueError where one of the methods cannot work with the model."""
    for method in methods:
        if isinstance(method, ChecksModel):
            method.check_model(model)


def prepare(plan: Plan, context: Context) -> tuple[Plan, Sequence[Row]]:
    """Runs the offline stages of a plan's methods, one after another, each on the rows of the one before.

    Returns the plan that plays in training, and its rows with the columns it reads. Raises what a method raises.
    """
    playing, rows = list[Method](), context.rows
    for number, method in enumerate(plan.methods):
        if isinstance(method, Prepares):
            folder = own_folder(context, number, method)
            folder.mkdir(parents=True, exist_ok=True)
            prepared, rows = method.prepare(replace(context, rows=rows, folder=folder))
            playing.append(prepared)
        else:
            playing.append(method)
    return Plan(playing, normalise=plan.normalise), rows


def own_folder(context: Context, number: int, method: Prepares) -> Path:
    """Returns the folder in which the method at `number` of a plan keeps what its offline stage makes."""
    return context.folder / f"{number}-{type(method).__name__.lower()}"
