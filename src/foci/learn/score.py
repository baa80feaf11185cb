"""Runs the offline stages of a run's methods, without training; `foci learn` finds their results.

    foci score RUN.yaml                                            # goes on where it stopped
    torchrun --no-python --nproc-per-node=2 foci score RUN.yaml    # the shards shared out among processes

First every process does its part of the work that can be shared (`SharesWork.fill`). Then one process prepares every
arm, and measures the premises of its methods where they can be measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from foci.config.run import Run
from foci.focus import Context, Prepares
from foci.learn.folder import opened
from foci.learn.inputs import Material, material
from foci.learn.offline import SharesWork, own_folder, plan_of, prepare
from foci.system import processes
from foci.system.files import write_json
from foci.system.run_folder import RunFolder
from foci.system.signals import stoppable
from foci.system.terminal import Terminal

SCORES = "scores.json"


@runtime_checkable
class MeasuresPremise(Protocol):
    """A method whose assumption can be measured before anything is trained."""

    def premise(self, context: Context) -> Sequence[Mapping[str, str | int | float | None]]:
        """Returns lines of a table; none where nothing can be measured."""
        ...


def score(run: Run, *, shared_only: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Runs the offline stages and returns what scores.json in the run's folder says.

    `tokens` that models read now and `seconds` it took (of the slowest process), `methods` by arm after their offline
    stages, and `premise`, lines of a table without those that another arm has too. `shared_only` leaves out arms that
    have nothing to share, whose scores a suite's cells would not find. Raises what `foci.learn.run.learn` raises of its
    input, and ValueError where no arm has an offline stage.
    """
    arms = _arms_to_score(run, shared_only)
    console = console or Terminal()
    with stoppable(), processes.together(), opened(run, resume=True, overwrite=False) as folder:
        number, count = processes.number(), processes.size()
        made = material(run, folder if number == 0 else None)
        tokens, seconds = _do_part(run, arms, made, folder, (number, count), console)
        found: dict[str, Any] = {"processes": count, "tokens": tokens, "seconds": seconds, "methods": {}, "premise": []}
        for arm in arms if number == 0 else ():
            context = _context_of(run, made, folder, arm)
            plan, _ = prepare(plan_of(run, arm), context)
            found["methods"][arm] = [repr(method) for method in plan.methods]
            for n, method in enumerate(plan_of(run, arm).methods):
                if isinstance(method, Prepares) and isinstance(method, MeasuresPremise):
                    lines = method.premise(replace(context, folder=own_folder(context, n, method)))
                    found["premise"] += [line for line in lines if line not in found["premise"]]
        if number == 0:
            write_json(folder.path / SCORES, found, sealed=True)
    return found


def _arms_to_score(run: Run, shared_only: bool) -> list[str]:
    """Returns the arms with an offline stage. Raises ValueError where there is none."""

    def has(arm: str) -> bool:
        methods = [method for method in plan_of(run, arm).methods if isinstance(method, Prepares)]
        return any(not shared_only or isinstance(method, SharesWork) for method in methods)

    arms = [arm for arm in run.arms if has(arm)]
    if not arms:
        raise ValueError(
            f"there is nothing to score: none of the arms {', '.join(run.arms)} has a method that looks at the corpus "
            f"before training{' and can keep it for a suite' if shared_only else ''}; start with foci learn"
        )
    return arms


def _context_of(run: Run, made: Material, folder: RunFolder, arm: str) -> Context:
    """Returns the things that the offline stages of one arm may look at."""
    return Context(
        made.loaded.model,  # type: ignore[arg-type]
        made.loaded.tokenizer,
        made.rows,
        folder.arm(arm).scores,
        run.seed,
        made.questions.prompts(),
        made.questions.held_out(),
    )


def _do_part(
    run: Run, arms: Sequence[str], made: Material, folder: RunFolder, place: tuple[int, int], console: Console
) -> tuple[int, float]:
    """Does the part of this process; returns the tokens of all processes and the seconds of the slowest one."""
    tokens, seconds, (number, count) = 0, 0.0, place
    for arm in arms:
        context = _context_of(run, made, folder, arm)
        for n, method in enumerate(plan_of(run, arm).methods):
            if not (isinstance(method, Prepares) and isinstance(method, SharesWork)):
                continue
            for read, took in method.fill(replace(context, folder=own_folder(context, n, method)), number, count):
                tokens, seconds = tokens + read, seconds + took
                if read and number == 0:
                    words = f"  {arm}  {tokens:,} tokens{f' of process 1 of {count}' if count > 1 else ''}"
                    console.print(f"{words}, {tokens / seconds:,.0f} per second", highlight=False, markup=False)
    every = processes.gathered((tokens, seconds))  # all processes have done their part when this returns
    return sum(read for read, _ in every), max(took for _, took in every)
