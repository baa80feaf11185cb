"""Runs the offline stage of an arm's methods: what they compute before the first update."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from transformers import PreTrainedModel

from foci.config.run import Run
from foci.focus import Context, Method, Plan, Prepares, Row
from foci.methods import build
from foci.system import processes


@runtime_checkable
class ChecksModel(Protocol):
    """A method that cannot work with every model."""

    def check_model(self, model: PreTrainedModel) -> None:
        """Raises ValueError where the method cannot work with a model. Quick: asked before anything is trained."""
        ...


@runtime_checkable
class ReplacesRows(Protocol):
    """A method that may read other rows than those of the corpus."""

    def replaces_rows(self) -> bool:
        """Says whether it does, with its settings."""
        ...


@runtime_checkable
class Summarises(Protocol):
    """A prepared method that says in one line for people what its offline stage found."""

    def summary(self) -> str:
        """Returns the line."""
        ...


@runtime_checkable
class SharesWork(Protocol):
    """A method whose offline stage can be shared out among processes, in parts that `prepare` finds again."""

    def fill(self, context: Context, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """Does part `number` of `count` of the work; yields the tokens read and the seconds of each piece."""
        ...


def plan_of(run: Run, arm: str) -> Plan:
    """Returns the plan of one arm, before its methods are prepared."""
    return Plan([build(spec) for spec in run.arms[arm]], normalise=run.train.normalise)


def check_models(methods: Sequence[Method], model: PreTrainedModel) -> None:
    """Raises ValueError where one of the methods cannot work with the model."""
    for method in methods:
        if isinstance(method, ChecksModel):
            method.check_model(model)


def prepare(plan: Plan, context: Context, *, together: bool = False) -> tuple[Plan, Sequence[Row]]:
    """Runs the offline stages of a plan's methods, one after another, each on the rows of the one before.

    Returns the plan that plays in training, and its rows with the columns it reads. Raises what a method raises. With
    `together` every process must call it: they share the work where a method allows it; where not, the others begin
    when the first is done, and read what it kept.
    """
    check_order(plan.methods)
    playing, rows = list[Method](), context.rows
    for number, method in enumerate(plan.methods):
        if isinstance(method, Prepares):
            folder = own_folder(context, number, method)
            folder.mkdir(parents=True, exist_ok=True)
            own = replace(context, rows=rows, folder=folder)
            if together and processes.size() > 1 and isinstance(method, SharesWork):
                for _ in method.fill(own, processes.number(), processes.size()):
                    continue
                processes.wait()
            make = partial(method.prepare, own)
            prepared, rows = processes.first_then_others(make) if together else make()
            playing.append(prepared)
        else:
            playing.append(method)
    return Plan(playing, normalise=plan.normalise), rows


def check_order(methods: Sequence[Method]) -> None:
    """Raises ValueError where a method looks at rows, and a later one puts others in their place."""
    for number, method in enumerate(methods):
        earlier = [repr(one) for one in methods[:number] if isinstance(one, Prepares)]
        if earlier and isinstance(method, ReplacesRows) and method.replaces_rows():
            raise ValueError(
                f"{method!r} puts other rows in place of those that {' and '.join(earlier)} looked at; write it first "
                "in the arm"
            )


def own_folder(context: Context, number: int, method: Prepares) -> Path:
    """Returns the folder in which the method at `number` of a plan keeps what its offline stage makes."""
    return context.folder / f"{number}-{type(method).__name__.lower()}"
