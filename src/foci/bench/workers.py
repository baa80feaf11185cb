"""Runs cells one after another in this process, or side by side in processes of their own."""

import multiprocessing
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from foci.bench.cells import Cell, run_cell
from foci.system import processes
from foci.system.files import read_lines
from foci.system.run_folder import RunFolder
from foci.system.terminal import Terminal
from foci.system.words import counted

FAILED = 3
"""Exit status of a process whose cell could not go on; the reason is in the cell's error file."""

Failures = list[tuple[Cell, str]]
"""Cells that could not go on, with the reason."""


def one_by_one(cells: Sequence[Cell], console: Console) -> Failures:
    """Runs cells in this process. Reports a cell that fails and goes on; a full disk or a signal ends all.

    Of several processes some may not have failed, and wait for the others; so there a cell that fails ends all.
    """
    failures: Failures = []
    for number, cell in enumerate(cells, start=1):
        console.print(
            f"cell {number} of {len(cells)}: {cell.name}, {counted(cell.run.train.steps or 0, 'update')}",
            highlight=False,
        )
        try:
            run_cell(cell, console)
        except (ValueError, ArithmeticError, RuntimeError) as error:
            if processes.size() > 1:
                _end_all(cell, error)
            failures.append((cell, said(error)))
            console.print(f"  {cell.name} failed: {said(error)}", markup=False, highlight=False)
    return failures


def _end_all(cell: Cell, error: Exception) -> NoReturn:
    """Raises ValueError that names the cell; a RuntimeError as it is, since it may be the end of another process."""
    if isinstance(error, RuntimeError):
        raise error
    raise ValueError(
        f"cell {cell.name} failed: {said(error)}. Other processes may wait for this one, so the suite ends here; start "
        "it without the launcher, and it goes on with the other cells"
    ) from error


def side_by_side(cells: Sequence[Cell], workers: int, console: Console) -> Failures:
    """Runs up to `workers` cells at once; threads are divided among them, their output goes to `seed-N.log`."""
    threads = max(1, torch.get_num_threads() // workers)
    context = _context()
    waiting, failures = deque(cells), Failures()
    running: dict[Any, tuple[Cell, BaseProcess]] = {}
    with _Progress(cells, console) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    cell = waiting.popleft()
                    process: BaseProcess = context.Process(target=_process, args=(cell, threads), name=cell.name)
                    process.start()
                    running[process.sentinel] = (cell, process)
                    progress.begin(cell)
                for sentinel in connection.wait(list(running), timeout=0.5):
                    cell, process = running.pop(sentinel)
                    process.join()
                    reason = _reason(cell, process)
                    failures += [(cell, reason)] if reason else []
                    progress.end(cell, reason)
                progress.look([cell for cell, _ in running.values()])
        finally:
            _end([process for _, process in running.values()])
    return failures


def _context() -> Any:
    """Returns the way to start processes: forked from a server that has imported everything, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _process(cell: Cell, threads: int) -> None:
    """Runs one cell in a process of its own, which ends at once when the process that started it is gone."""
    os.setpgrp()  # Ctrl-C reaches the first process alone, which then asks this one to stop
    parent = multiprocessing.parent_process()
    assert parent is not None, "a cell's process is begun by another one"
    _when_ready(parent.sentinel, lambda: os._exit(1))
    torch.set_num_threads(threads)
    folder = cell.run.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    error_file(cell).unlink(missing_ok=True)
    with (folder / f"{cell.run.output.name}.log").open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            run_cell(cell, Terminal(file=log, width=120))
        except Exception as error:
            traceback.print_exc(file=log)
            error_file(cell).write_text(said(error), encoding="utf-8")
            raise SystemExit(FAILED) from None


def said(error: Exception) -> str:
    """Returns an error's words; its kind, where it has none."""
    return str(error) or type(error).__name__


def error_file(cell: Cell) -> Path:
    """Returns the file in which a process of its own writes why its cell could not go on."""
    return cell.run.output.parent / f"{cell.run.output.name}.error"


def _when_ready(sentinel: int, act: Callable[[], None]) -> None:
    """Calls `act` in a thread as soon as `sentinel` is ready."""

    def watch() -> None:
        connection.wait([sentinel])
        act()

    threading.Thread(target=watch, daemon=True).start()


def _reason(cell: Cell, process: BaseProcess) -> str | None:
    """Says why a process that has ended did not finish its cell; None where it did."""
    if process.exitcode == 0:
        return None
    if process.exitcode == FAILED and error_file(cell).is_file():
        return error_file(cell).read_text(encoding="utf-8")
    return f"its process ended with status {process.exitcode}; see {cell.run.output}.log"


def _end(processes: Sequence[BaseProcess]) -> None:
    """Asks processes to stop, and waits until they have written their checkpoints."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


@dataclass
class _Progress:
    """Lines that follow the running cells on a terminal; a line per beginning and end elsewhere."""

    cells: Sequence[Cell]
    console: Console

    def __enter__(self) -> "_Progress":
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.done = 0
        if self.console.is_terminal:
            name, bar, done = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn()
            self.bars = Progress(name, bar, done, TimeElapsedColumn(), console=self.console)
            self.bars.start()
            self.all = self.bars.add_task("cells", total=len(self.cells))
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def begin(self, cell: Cell) -> None:
        if self.bars is not None:
            self.tasks[cell.name] = self.bars.add_task(f"  {cell.name}", total=cell.run.train.steps)
        else:
            self.console.print(f"{cell.name}: begins, {counted(cell.run.train.steps or 0, 'update')}", highlight=False)

    def look(self, cells: Sequence[Cell]) -> None:
        if self.bars is not None:
            for cell in cells:
                lines = read_lines(RunFolder(cell.run.output, 1).arm(cell.arm).metrics)
                self.bars.update(self.tasks[cell.name], completed=lines[-1]["step"] if lines else 0)

    def end(self, cell: Cell, reason: str | None) -> None:
        self.done += 1
        said = f"{cell.name}: {f'failed: {reason}' if reason else 'finished'} ({self.done} of {len(self.cells)})"
        if self.bars is not None:
            self.bars.update(self.all, completed=self.done)
            self.bars.remove_task(self.tasks[cell.name])
        if reason or self.bars is None:
            self.console.print(said, markup=False, highlight=False)
