"""The page of a suite: one HTML file with its tables and figures inside, and links to the report of every cell."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from foci.bench.markdown import sections, words
from foci.report.style import inline
from foci.report.tables import html

CAPTIONS = {
    "learned_against_retained": (
        "Learned against retained",
        "Each arm's mean path from the untouched model; large markers are the chosen points with their intervals; the "
        "dashed line joins what nothing else, the untouched model included, beats in both. Up and right is better.",
    ),
    "learned_over_updates": ("Learned over updates", "Mean over seeds; the band is its interval."),
}

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ name }}</title><style>{{ style }}
figure svg { width: 100%; height: auto; background: #fff; }</style></head><body>
<p class="over">foci bench</p><h1>{{ name }}</h1><p class="note">{{ words }}</p>
{% for cell, reason in failures.items() %}<div class="notice"><p>{{ cell }} failed: {{ reason }}</p></div>{% endfor %}
<section><h2>Figures</h2><div class="figures">
{% for figure in figures %}<figure><h3>{{ figure.title }}</h3>{{ figure.svg }}
<figcaption class="note">{{ figure.note }}</figcaption></figure>{% endfor %}</div></section>
{% for title, table in sections %}<section><h2>{{ title }}</h2>
<div class="wide" role="region" tabindex="0" aria-label="{{ title }}">{{ table }}</div></section>{% endfor %}
<section><h2>Cells</h2><ul>{% for label, link in cells %}<li><a href="{{ link }}">{{ label }}</a></li>{% endfor %}</ul>
<p class="note">{{ about }}</p></section></body></html>
"""


def page(table: Mapping[str, Any], svgs: Sequence[Path], cells: Sequence[tuple[str, str]], about: str) -> str:
    """The page as text; `cells` are (name, relative link) of the cells' reports."""
    style = (files("foci.report") / "style.css").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True)
        .from_string(TEMPLATE)
        .render(
            name=table["name"],
            words=words(table),
            failures=table["failures"],
            sections=[(title, html(shown)) for title, shown in sections(table)],
            figures=[_figure(svg) for svg in svgs],
            cells=cells,
            about=about,
            style=Markup(style),  # noqa: S704 - our own file
        )
    )


def _figure(svg: Path) -> dict[str, Any]:
    """A figure for the page: its title, a note, and the SVG."""
    title, note = CAPTIONS[svg.stem]
    return {"title": title, "note": note, "svg": inline(svg.read_text(encoding="utf-8"), title, svg.stem)}
