"""One cell of a suite: one arm trained with one seed, in a folder of its own. Finished cells are never run again."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from foci import models
from foci.bench.budget import tokens_of, updates_of
from foci.bench.config import Suite, cell_run, start_run
from foci.bench.folder import SuiteFolder
from foci.config.run import Run, dump_run
from foci.focus import Plan, Prepares, Row
from foci.learn.arguments import planned_updates
from foci.learn.baseline import Start, context_of, prepared, settings_of
from foci.learn.cells import ArmSeed
from foci.learn.folder import has_settings, opened
from foci.learn.offline import plan_of, prepare
from foci.learn.run import learn
from foci.report.write import write_report
from foci.slide.folder import SlideFolder
from foci.slide.run import curve, slide_cell
from foci.slide.settings import SlideConfig
from foci.system import processes
from foci.system.files import read_json, replacing_folder, write_json
from foci.system.run_folder import READ, RUN, RunFolder
from foci.training.plan import check_columns, with_columns

SHARED = (*READ, "start.json")
"""Files that a cell copies from the start of its seed, which has computed them."""


@dataclass(frozen=True)
class Cell(ArmSeed):
    """All that is needed to run one cell, in this process or another one.

    `start` is the folder that the cells of a seed share, `scores` that of offline stages which were computed before.
    """

    run: Run
    start: Path
    scores: Path | None = None
    keep_models: bool = False
    slide: SlideConfig | None = None

    @property
    def path(self) -> Path:
        """The folder of the cell's run."""
        return self.run.output

    def differs(self) -> str:
        """Returns "other settings ..." where run.yaml of the folder is not that of the cell.

        A cell that was not asked along its change, and whose model is gone, differs from one that is to be.
        """
        config = RunFolder(self.path, 1).config
        if config.is_file() and not has_settings(config, self.run):
            return "other settings than the suite has now"
        if (waiting := self.unasked()) and not RunFolder(self.path, 1).arm(self.arm).model.is_dir():
            shares = ", ".join(f"{share:g}" for share in waiting)
            return f"no questions at these shares of its change: {shares} (slide.points), and its model is deleted"
        return ""

    def unasked(self) -> list[float]:
        """Returns the shares of a trained cell's change that are still to be asked."""
        folder = RunFolder(self.path, 1).arm(self.arm)
        result = read_json(folder.result) if self.slide is not None else None
        if self.slide is None or result is None:
            return []
        return SlideFolder(folder, self.slide.how).missing(result["weights_sha256"], self.slide.shares)

    def curve(self) -> list[dict[str, Any]]:
        """Returns what was asked along the change, by rising share; nothing where the suite does not ask it."""
        if self.slide is None:
            return []
        folder = SlideFolder(RunFolder(self.path, 1).arm(self.arm), self.slide.how)
        return curve(folder, self.seed, self.slide.shares)


def starts(suite: Suite, folder: SuiteFolder, console: Console, *, overwrite: bool = False) -> dict[int, Start]:
    """Makes rows, questions and the frozen baseline of every seed, or reads them where they were made before.

    `overwrite` makes them again where they were made with other settings. Raises ValueError where an arm needs what
    the rows have not, before anything is trained.
    """
    found: dict[int, Start] = {}
    for seed in suite.seeds:
        run = start_run(suite, seed, folder.start(seed))
        stale = overwrite and processes.from_first(partial(_is_stale, RunFolder(run.output, 1).config, run))
        with opened(run, resume=True, overwrite=stale) as shared:
            found[seed], _ = prepared(run, shared, console)
    if len(prints := {start.fingerprint for start in found.values()}) > 1:
        raise ValueError(f"model {suite.model.name} changed between two seeds (fingerprints {prints}); use --overwrite")
    rows = next(iter(found.values())).rows
    for arm in suite.arms:
        plan = plan_of(suite, arm)
        check_columns(Plan([m for m in plan.methods if not isinstance(m, Prepares)]), rows)
    return found


def _is_stale(config: Path, run: Run) -> bool:
    return config.is_file() and not has_settings(config, run)


def cell(suite: Suite, folder: SuiteFolder, arm: str, start: Start) -> Cell:
    """Returns the cell of an arm and a start's seed; `match` decides its number of updates."""
    seed, output = start.run.seed, folder.cell(arm, start.run.seed)
    updates, scores = planned_updates(len(start.rows), suite.train), None
    if suite.match == "tokens":
        updates, scores = processes.from_first(partial(_matched_by_tokens, suite, folder, arm, start, updates))
    run = cell_run(suite, arm, seed, updates, output)
    return Cell(arm, seed, run, folder.start(seed), scores, suite.keep_models, suite.slide)


def finished(cell: Cell) -> bool:
    """Tells whether a cell's summary is written and its change asked along.

    Raises FileExistsError where the folder holds another run.
    """
    cell.check()
    folder = RunFolder(cell.path, 1)
    summary = read_json(folder.summary) if folder.config.is_file() else None
    return summary is not None and list(summary["arms"]) == [cell.arm] and not cell.unasked()


def run_cell(cell: Cell, console: Console) -> None:
    """Trains and measures one cell, or goes on where it stopped. Raises what `foci.learn.run.learn` raises.

    Every process must call it.
    """
    processes.from_first(partial(_stage, cell))
    learn(cell.run, resume=True, console=console)
    if cell.slide is not None and processes.from_first(cell.unasked):
        slide_cell(cell.run, cell.slide.how, cell.slide.shares, console)
    processes.from_first(partial(tidy, cell))


def tidy(cell: Cell) -> None:
    """Deletes what a finished cell needs no more, and writes its report where a kill came before it."""
    folder = RunFolder(cell.path, 1)
    if not cell.keep_models:
        arm = folder.arm(cell.arm)
        for path in (arm.model, arm.checkpoints):
            shutil.rmtree(path, ignore_errors=True)
    if not folder.report.exists():
        write_report([folder.path], folder.report)


def _stage(cell: Cell) -> None:
    """Makes the cell's folder with all that its seed shares, in one rename."""
    final = cell.path
    if RunFolder(final, 1).config.is_file():
        return
    with replacing_folder(final) as part:
        for name in SHARED:
            source = cell.start / name
            if source.is_dir():
                shutil.copytree(source, part / name)
            elif source.exists():
                shutil.copy2(source, part / name)
        if cell.scores is not None and cell.scores.is_dir():
            shutil.copytree(cell.scores, RunFolder(part, 1).arm(cell.arm).scores)
        (part / "run.yaml").write_text(dump_run(cell.run), encoding="utf-8")
        _own_start(part, cell.run)


def _own_start(folder: Path, run: Run) -> None:
    """Writes into the start of a seed, which was copied, that it is the cell's: its settings, and the files it has."""
    start = read_json(folder / "start.json")
    kept = {name: digest for name, digest in start.get("files", {}).items() if (folder / name).is_file()}
    write_json(folder / "start.json", {**start, "settings": settings_of(run), "files": kept}, sealed=True)


def _matched_by_tokens(suite: Suite, folder: SuiteFolder, arm: str, start: Start, updates: int) -> tuple[int, Path]:
    """Returns the updates in which an arm reads what plain fine-tuning reads in `updates`, and the scores' folder."""
    seed, place = start.run.seed, folder.matched(arm, start.run.seed)
    scores = place / "scores"
    run = cell_run(suite, arm, seed, 1, folder.cell(arm, seed))
    known = read_json(place / "updates.json")
    if known is None or known.get("asked") != updates or not RUN.same(known["run"], dump_run(run)):
        if known is not None:
            shutil.rmtree(place)
        scores.mkdir(parents=True, exist_ok=True)
        plan, rows = _prepared_plan(run, start, scores)
        budget = tokens_of(Plan(), start.rows, suite.train, seed, updates)
        count = updates_of(plan, rows, run.train, seed, budget)
        known = {"run": dump_run(run), "asked": updates, "updates": count, "tokens": budget}
        write_json(place / "updates.json", known, sealed=True)
    return known["updates"], scores


def _prepared_plan(run: Run, start: Start, scores: Path) -> tuple[Plan, Sequence[Row]]:
    """Runs the offline stages. Returns plan and rows; loads the model only for a method with an offline stage."""
    (arm,) = run.arms
    plan, rows = plan_of(run, arm), start.rows
    if any(isinstance(method, Prepares) for method in plan.methods):
        loaded = models.load_configured(run.model)
        plan, rows = prepare(plan, context_of(start, loaded, scores))
    return plan, with_columns(plan, rows)
