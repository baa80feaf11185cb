"""Writes the report of runs: one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from foci.report import weigher
from foci.report.page import context
from foci.report.read import read_run
from foci.report.templates import render
from foci.system.files import write_text


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the report of one or more runs' folders, finished or not, and returns the file's path.

    The folder of a meta-training has a page of its own.

    `out` is the file to write, or a folder that gets a `report.html`. With several runs the arms are
    named run/arm. The file is replaced all at once.

    Raises:
        ValueError: no folder was given, one is not a run, or a meta-training's is not alone or not finished.
        FileNotFoundError: a folder does not exist.

    """
    if not runs:
        raise ValueError("a report needs at least one run, got none; give the output folder of a `foci learn` run")
    folders = [Path(run) for run in runs]
    trained = [folder for folder in folders if weigher.is_weigher(folder)]
    if trained and len(folders) > 1:
        raise ValueError(
            f"{trained[0]} is a meta-training, whose report stands alone, got {len(folders)} folders; give it alone"
        )
    page = weigher.page(trained[0]) if trained else runs_page(folders)
    out = Path(out)
    target = out / "report.html" if out.is_dir() else out
    write_text(target, page)
    return target


def runs_page(runs: Sequence[Path]) -> str:
    """Returns the page of one or more runs' folders as text."""
    return render("run.html.j2", script="report.js", **context([read_run(run) for run in runs]))
