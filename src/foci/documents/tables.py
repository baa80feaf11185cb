"""Tables as Markdown."""

import re
from collections.abc import Iterable, Iterator, Sequence

_HAS_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"[-+]?[\d.,\s]*\d[\d.,\s]*%?")
_NONE = frozenset(("-", "--", "–", "—", "n/a", "na", "none", "unknown", "null", "tbd", "?", "x", "yes", "no"))
CHARACTERS = 500
"""Characters of a part of a long table, at most (unless one line alone has more)."""


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


def parts(rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, int, str]]:
    r"""Yields a table of any length in parts, each under the same head: its first and last line number, and its text.

    `rows` are lines with their numbers. The head is the first line with two cells of text or more; lines before it are
    parts of their own, such as a title. After an empty line another table may begin, with a head of its own.

    >>> [part for part in parts([(1, ["Parts"]), (2, ["Part", "Code"]), (3, ["Bolt", "7"])])]
    [(1, 1, 'Parts'), (3, 3, '| Part | Code |\n|---|---|\n| Bolt | 7 |')]
    """
    head: tuple[int, Sequence[str]] | None = None
    held: list[tuple[int, Sequence[str]]] = []
    size, apart = 0, False
    for number, cells in rows:
        full = [cell for cell in cells if cell.strip()]
        if not full:
            apart = True
            continue
        if head is not None and apart and _is_head(cells, head[1], held[-1][1] if held else ()):
            yield (held or [head])[0][0], (held or [head])[-1][0], _under(head[1], held)
            head, held = None, []
        apart = False
        if head is None and len(full) < 2:
            yield number, number, " ".join(full[0].split())
            continue
        if head is None:
            head, size = (number, cells), _length(cells)
            continue
        if held and size + _length(cells) > CHARACTERS:
            yield held[0][0], held[-1][0], _under(head[1], held)
            held, size = [], _length(head[1])
        held.append((number, cells))
        size += _length(cells)
    if head is not None:
        yield (held or [head])[0][0], (held or [head])[-1][0], _under(head[1], held)


def _is_head(cells: Sequence[str], head: Sequence[str], above: Sequence[str]) -> bool:
    """Says whether a line after an empty one begins another table.

    It has words alone: more of them than the head before has cells, or one in each column of numbers, of which there
    are two or more.
    """
    full = [cell for cell in cells if cell.strip()]
    if len(full) < 2 or any(_HAS_DIGIT.search(cell) for cell in full):
        return False
    over = [cell.strip() for old, cell in zip(above, cells, strict=False) if _NUMBER.fullmatch(old.strip())]
    named = len(over) > 1 and all(over) and not any(word.casefold() in _NONE for word in over)
    return named or len(full) > sum(bool(cell.strip()) for cell in head)


def between(noun: str, first: int, last: int) -> str:
    """Returns the name of a range of lines.

    >>> between("row", 2, 2), between("row", 2, 9)
    ('row 2', 'rows 2 to 9')
    """
    return f"{noun} {first}" if first == last else f"{noun}s {first} to {last}"


def _length(cells: Sequence[str]) -> int:
    return sum(len(cell) + 3 for cell in cells)


def _under(head: Sequence[str], held: Sequence[tuple[int, Sequence[str]]]) -> str:
    return markdown([head, *(cells for _, cells in held)])
