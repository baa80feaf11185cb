"""Tables as Markdown."""

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as a Markdown table whose head is the first row; a single column as lines.

    Columns and rows without text are left out, line breaks in a cell become spaces, and | is escaped.

    >>> print(markdown([["Part", "Code"], ["Bolt", "007"]]))
    | Part | Code |
    |---|---|
    | Bolt | 007 |
    """
    cells = [[" ".join(str(cell).split()) for cell in row] for row in rows]
    width = max((len(row) for row in cells), default=0)
    cells = [row + [""] * (width - len(row)) for row in cells if any(row)]
    kept = [n for n in range(width) if any(row[n] for row in cells)]
    if len(kept) < 2:
        return "\n".join(row[kept[0]] for row in cells) if kept else ""
    lines = [_line([row[n] for n in kept]) for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(kept), *lines[1:]])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
