"""The page of a suite: one HTML file with its tables and figures inside, and links to the report of every cell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foci.bench import notes
from foci.bench.markdown import sections
from foci.report.style import inline
from foci.report.tables import html
from foci.report.templates import render

CAPTIONS = {
    "learned_against_retained": (
        "Learned against retained",
        "Each arm's mean path from the untouched model; large markers are the chosen points with their intervals; the "
        "dashed line joins what nothing else, the untouched model included, beats in both. Up and right is better.",
    ),
    "along_the_change": (
        "Along the change",
        "Each arm with only a share of the change that training made, from the untouched model to the trained one, "
        "means over seeds; the dotted line is the target at which arms are compared. Up and right is better.",
    ),
    "tokens_along_the_change": (
        "Along the change, answer tokens",
        "The same of answer tokens, given the true words before them: finer steps than whole answers.",
    ),
    "learned_over_updates": ("Learned over updates", "Mean over seeds; the band is its interval."),
}


def page(table: Mapping[str, Any], svgs: Sequence[Path], cells: Sequence[tuple[str, str]], about: str) -> str:
    """Returns the page as text; `cells` are (name, relative link) of the cells' reports."""
    return render(
        "suite.html.j2",
        name=table["name"],
        summary=notes.lead(table),
        failures=table["failures"],
        unfinished=notes.unfinished(table) if table["unfinished"] else "",
        terms=notes.terms(table),
        sections=[(title, html(shown)) for title, shown in sections(table)],
        figures=[_figure(svg) for svg in svgs],
        cells=cells,
        about=about,
    )


def _figure(svg: Path) -> dict[str, Any]:
    """Returns a figure for the page: its title, a note, and the SVG."""
    title, note = CAPTIONS[svg.stem]
    return {"title": title, "note": note, "svg": inline(svg.read_text(encoding="utf-8"), title, svg.stem)}
