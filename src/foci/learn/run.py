"""Runs `foci learn`: corpus -> rows -> baseline -> arms -> summary -> report."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rich.console import Console

from foci.card.write import write_cards
from foci.config.run import Run
from foci.learn.arm import Arm
from foci.learn.baseline import prepared
from foci.learn.earlier import Earlier
from foci.learn.folder import opened
from foci.report.measure import best_arm
from foci.report.write import write_report
from foci.system import processes
from foci.system.files import read_json, write_json
from foci.system.folder import discard_replaced
from foci.system.machine import machine, versions
from foci.system.run_folder import RunFolder
from foci.system.signals import stoppable
from foci.system.terminal import Terminal


def learn(run: Run, *, resume: bool = False, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Runs all arms and writes the run's folder; returns the summary (also in summary.json).

    Raises ValueError for input that cannot work, FileExistsError for a folder that is not free, `Interrupted` after
    a signal (the checkpoint is written), `NonFinite` and `DiskFull` where training cannot go on.

    Under a launcher such as torchrun, processes share the work, and the first reads and writes; the summary is that of
    one process, but for times, memory and padding.
    """
    console = console or Terminal()
    with (
        stoppable() as stop,
        processes.together(processes.RESUME),
        opened(run, resume=resume, overwrite=overwrite) as folder,
    ):
        start, corpus = prepared(run, folder, console, keep=True)
        if processes.is_first():
            discard_replaced(folder.path)
        fresh = _summary_without_arms(run, corpus, start.earlier)
        summary = processes.from_first(lambda: _begun(folder, fresh, console)) or fresh
        for name in run.arms:
            summary["arms"][name] = Arm(name, start, folder.arm(name), console, stop).result()
            if processes.is_first():
                write_json(folder.summary, summary, sealed=True)
        if processes.is_first():
            folder.link(best_arm(summary["arms"]))
            _show(folder, list(run.arms), console)
    return summary


def _show(folder: RunFolder, names: Sequence[str], console: Console) -> None:
    """Writes what people look at: the report and the model cards."""
    with reporting(folder, console):
        write_report([folder.path], folder.report)
    with reporting(folder, console, "the model cards", f"foci learn {shlex.quote(str(folder.path))} --resume"):
        arms = {name: folder.arm(name) for name in names}
        write_cards(folder.path, {name: (arm.model, arm.adapter) for name, arm in arms.items()})


def _begun(folder: RunFolder, fresh: Mapping[str, Any], console: Console) -> dict[str, Any] | None:
    """Returns the summary of the arms that were finished; None where there is none, or no good one, which is told.

    `fresh` is the summary of this run before its first arm: another run's differs from it.
    """
    try:
        found: dict[str, Any] | None = read_json(folder.summary)
    except ValueError as error:
        reason = f"is damaged and is written again ({error})"
    else:
        wrong = [name for name in ("name", "model", "seed") if found is not None and found.get(name) != fresh[name]]
        if not wrong:
            return found
        reason = f"is of another run, by its {' and '.join(wrong)}, and is written again"
    console.print(f"  summary.json {reason}", highlight=False, markup=False, soft_wrap=True)
    return None


def _summary_without_arms(run: Run, corpus: dict[str, Any], earlier: Earlier | None) -> dict[str, Any]:
    """Returns the content of summary.json before the first arm."""
    return {
        "foci": version("foci"),
        "name": run.name,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": run.model.name,
        "seed": run.seed,
        "machine": {**machine(), **({"processes": processes.size()} if processes.size() > 1 else {})},
        "versions": versions(),
        "corpus": corpus,
        **({} if earlier is None else {"continues": {"name": earlier.history["after"][-1], "arm": earlier.arm}}),
        "arms": {},
    }


@contextlib.contextmanager
def reporting(folder: RunFolder, console: Console, what: str = "the report", again: str = "") -> Iterator[None]:
    """Prints why something that tells of the run could not be written; the run ends well, its summary is there."""
    try:
        yield
    except (ValueError, OSError) as error:
        again = again or f"foci report {shlex.quote(str(folder.path))}"
        words = f"{what} could not be written ({error}); try again with: {again}"
        console.print(words, markup=False, soft_wrap=True)
