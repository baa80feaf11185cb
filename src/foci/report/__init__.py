"""One self-contained HTML file that says what a run learned and what it forgot. Imports no torch."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import ChainableUndefined, Environment, FunctionLoader
from markupsafe import Markup

from foci.report import words
from foci.report.page import context
from foci.report.read import read_run
from foci.report.terminal import markdown_table, print_table

__all__ = ["markdown_table", "print_table", "read_run", "write_report"]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the report of one or more runs' folders, finished or not, and returns the file's path.

    `out` is the file to write, or a folder that gets a `report.html`. With several runs the arms are
    named run/arm. The file is replaced all at once.

    Raises:
        ValueError: no folder was given, or one is not a run.
        FileNotFoundError: a folder does not exist.

    """
    if not runs:
        raise ValueError("a report needs at least one run, got none; give the output folder of a `foci learn` run")
    page = render([Path(run) for run in runs])
    out = Path(out)
    target = out / "report.html" if out.is_dir() else out
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_text(page, encoding="utf-8")
    part.replace(target)
    return target


def render(runs: Sequence[Path]) -> str:
    """The page as text. Its policy allows its own script, by hash, and no other; it loads nothing."""
    here = files("foci.report")
    style = (here / "style.css").read_text(encoding="utf-8")
    script = "\n" + (here / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    loader = FunctionLoader(lambda name: (here / name).read_text(encoding="utf-8"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["words"] = words
    template = environment.get_template("template.html.j2")
    return template.render(
        context([read_run(run) for run in runs]),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
    )
