"""Suites: arms times seeds, run where they were not run before, and compared in one table with intervals."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from foci.bench.cells import Cell, cell, finished, starts, tidy
from foci.bench.config import Suite
from foci.bench.folder import SuiteFolder, changed_files, forget_files, opened_suite
from foci.bench.markdown import markdown
from foci.bench.page import page
from foci.bench.plots import draw
from foci.bench.table import measure, table
from foci.bench.workers import Failures, one_by_one, side_by_side
from foci.learn.baseline import Start
from foci.learn.offline import plan_of
from foci.system import launch, processes
from foci.system.files import read_json, write_json, write_text
from foci.system.run_folder import RunFolder
from foci.system.signals import Interrupted, stoppable
from foci.system.terminal import Terminal
from foci.system.words import counted


def bench(suite: Suite, *, workers: int = 1, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Runs the cells that are not finished and writes the suite's tables, figures and page; returns table.json.

    A torn cell goes on where it stopped. `workers` cells run side by side, each in a process of its own with its share
    of the threads; with 1 they run in this one. `overwrite` runs again what was run with other settings or files.
    Processes of a launcher share the work of each cell; a cell that fails then ends the suite.

    Raises FileExistsError where the folder holds something else or cells of other settings, ValueError for input that
    cannot work and, when all else is done and written, for cells that failed; `Interrupted` after a signal,
    when the table of the finished cells is written.
    """
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}; 1 runs the cells one after another")
    if workers > 1 and (count := launch.count()) > 1:
        raise ValueError(
            f"--workers {workers} runs cells side by side, but a launcher started {count} processes, which share the "
            "work of each cell; leave out --workers, or start without the launcher"
        )
    console = console or Terminal()
    for arm in suite.arms:
        plan_of(suite, arm)
    with stoppable(), processes.together(), opened_suite(suite) as folder:
        processes.from_first(partial(_check_files, suite, folder, overwrite))
        begun = starts(suite, folder, console, overwrite=overwrite)
        if suite.match != "steps":
            console.print(f"matching {counted(len(suite.arms), 'arm')} by {suite.match}", highlight=False)
        cells = [cell(suite, folder, arm, begun[seed]) for seed in suite.seeds for arm in suite.arms]
        waiting = [cells[number] for number in processes.from_first(partial(_waiting, cells, overwrite))]
        if known := len(cells) - len(waiting):
            console.print(f"{known} of {len(cells)} cells were finished before", highlight=False)
        try:
            failures = side_by_side(waiting, workers, console) if workers > 1 else one_by_one(waiting, console)
        except (Interrupted, ValueError):  # ValueError: a cell failed, and several processes end
            if processes.is_first():
                _write_so_far(suite, folder, begun, cells, console)
            raise
        found = processes.from_first(
            lambda: _write(suite, folder, begun, [one for one in cells if finished(one)], failures)
        )
    if failures:
        reasons = "; ".join(f"{one.name}: {reason}" for one, reason in failures)
        raise ValueError(f"{len(failures)} of {len(cells)} cells failed ({reasons}); the table is of the others")
    return found


def _waiting(cells: Sequence[Cell], overwrite: bool) -> list[int]:
    """Returns the numbers of the cells that are to be run; with `overwrite` forgets those of other settings."""
    for one in cells if overwrite else ():
        one.forget()
    return [number for number, one in enumerate(cells) if not finished(one)]


def _check_files(suite: Suite, folder: SuiteFolder, overwrite: bool) -> None:
    """Refuses files that changed under a suite, or forgets all that was made from the old ones."""
    if not (changed := changed_files(suite, folder)):
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder.path} was begun with another content of {', '.join(changed)}; put it back, name another output, "
            "or run everything again with --overwrite"
        )
    for name in ("cells", "matched", "start"):
        shutil.rmtree(folder.path / name, ignore_errors=True)
    forget_files(folder)
    changed_files(suite, folder)


def _write(
    suite: Suite,
    folder: SuiteFolder,
    begun: Mapping[int, Start],
    cells: Sequence[Cell],
    failures: Failures,
    unfinished: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes tables, figures and page from the finished cells; `unfinished` are names of cells that wait."""
    for one in cells:
        tidy(one)
    found = table(suite, begun, measure(cells), {one.name: reason for one, reason in failures}, unfinished)
    about = _about(cells)
    write_json(folder.table, found, sealed=True)
    write_text(folder.markdown, markdown(found, about))
    links = [(one.name, str(RunFolder(one.run.output, 1).report.relative_to(folder.path))) for one in cells]
    write_text(folder.report, page(found, draw(found, folder.path), links, about))
    return found


def _write_so_far(
    suite: Suite, folder: SuiteFolder, begun: Mapping[int, Start], cells: Sequence[Cell], console: Console
) -> None:
    """Writes the table of a suite that was stopped, from the cells that are finished, if there are any."""
    done = [one for one in cells if finished(one)]
    if done:
        _write(suite, folder, begun, done, [], [one.name for one in cells if one not in done])
        console.print(f"the table of the {len(done)} of {len(cells)} finished cells: {folder.markdown}", soft_wrap=True)


def _about(cells: Sequence[Cell]) -> str:
    """Says where and when the first cell was measured."""
    if not cells:
        return ""
    summary = read_json(RunFolder(cells[0].run.output, 1).summary)
    machine, versions = summary["machine"], summary["versions"]
    return (
        f"Begun {summary['started']} on {machine['device']} ({machine['system']}, {machine['threads']} threads), "
        f"foci {summary['foci']}, torch {versions.get('torch')}, transformers {versions.get('transformers')}."
    )
