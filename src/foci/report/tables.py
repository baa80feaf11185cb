"""A small table of texts, and its three forms: on a terminal, in Markdown, in HTML. Each form escapes the texts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from foci.system.harmless import visible

_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_SPECIAL = re.compile(r"[\\`*|]|(?<!\w)_|_(?!\w)|\](?=[(\[:])")
"""Characters that Markdown would read; an underscore inside a word is none, a bracket before no link neither."""


class Code(str):
    """A cell that is code."""

    __slots__ = ()


class Emphasis(str):
    """A cell that is emphasised."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Heads and rows of texts; `align` has one letter per column, "l" or "r" (left, right).

    A head may have several lines. A cell may be `Code` or `Emphasis`. Without `align` the first column is left, the
    others are right: a name, then numbers. Raises ValueError where a row or `align` has another number of columns.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default=())
    align: str = ""

    def __post_init__(self) -> None:
        if not self.align:
            object.__setattr__(self, "align", "l" + "r" * (len(self.heads) - 1))
        for name, cells in [("align", self.align), *((f"row {n}", row) for n, row in enumerate(self.rows))]:
            if len(cells) != len(self.heads):
                raise ValueError(f"a table of {len(self.heads)} columns got {len(cells)} in {name}: {cells!r}; fill it")


def terminal(table: Table, *, ruled: bool = True, fold: int | None = None) -> RichTable:
    """Returns the table for a rich console; `ruled` draws a line under the heads.

    `fold` keeps all columns on one line each but the first, which is broken where the terminal is too narrow, down to
    so many characters.
    """
    if ruled:
        made = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    else:
        made = RichTable(box=None, pad_edge=False)
    for n, (head, side) in enumerate(zip(table.heads, table.align, strict=True)):
        first = fold is not None and n == 0
        made.add_column(
            Text(head),
            justify="left" if side == "l" else "right",
            overflow="fold" if first else "ellipsis",
            min_width=fold if first else None,
            no_wrap=fold is not None and not first,
        )
    for row in table.rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


def markdown(table: Table) -> str:
    """Returns the table in Markdown, without a line break at its end."""
    lines = [[marked(head) for head in table.heads], *([marked(cell) for cell in row] for row in table.rows)]
    shown = [f"| {' | '.join(line)} |" for line in lines]
    sides = "|".join("---" if side == "l" else "---:" for side in table.align)
    return "\n".join([shown[0], f"|{sides}|", *shown[1:]])


def html(table: Table) -> Markup:
    """Returns the table as an HTML element; the first cell of a row is its head."""
    head = _line(table, table.heads, ["th"] * len(table.heads), scope="col")
    body = [_line(table, row, ["th", *["td"] * (len(row) - 1)], scope="row") for row in table.rows]
    rows = Markup("\n").join(body)
    return Markup("<table>\n<thead>{}</thead>\n<tbody>\n{}\n</tbody>\n</table>").format(head, rows)


def _line(table: Table, cells: Sequence[str], tags: Iterable[str], scope: str) -> Markup:
    made = []
    for n, (cell, tag, side) in enumerate(zip(cells, tags, table.align, strict=True)):
        own = Markup(' scope="{}"').format(scope) if tag == "th" else Markup()
        own += Markup(' class="text"') if side == "l" and n else Markup()
        wrap = {Code: "<code>{}</code>", Emphasis: "<em>{}</em>"}.get(type(cell), "{}")  # type: ignore[call-overload]
        made.append(Markup(f"<{tag}{own}>{wrap}</{tag}>").format(cell))  # noqa: S704 - tags of our own
    return Markup("<tr>{}</tr>").format(Markup().join(made))


def marked(cell: str) -> str:
    """Returns a text in Markdown, on one line, as it is: nothing of it is read as markup."""
    text = " ".join(visible(str(cell)).split())
    if isinstance(cell, Code):
        text = text.replace("|", r"\|")
        fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
        return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"
    text = _SPECIAL.sub(lambda found: "\\" + found[0], re.sub("[<>&]", lambda found: _ENTITIES[found[0]], text))
    return f"*{text}*" if isinstance(cell, Emphasis) else text
