"""Pages with text at places (as a PDF has them) to pieces in reading order, repaired."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median

from foci.documents.layout import Block, Line, Run, gutters, in_order, lines_of, paragraphs
from foci.documents.pieces import PARAGRAPH, Lost, Piece
from foci.documents.repair import HYPHEN, Words, goes_on, running
from foci.documents.rules import Grid, Rule, grids
from foci.documents.tables import markdown

OUTER = 4
"""Lines at the top and at the bottom of a page among which running heads are looked for."""
TABLE = "\ufdd0"
"""Begins a run that stands for a whole table; the number of the table follows."""


@dataclass(frozen=True)
class Page:
    """The text of a page at its places, and its rules; `lost` is the reason why it cannot be read, "" where it can."""

    number: int
    runs: tuple[Run, ...]
    rules: tuple[Rule, ...] = ()
    lost: str = ""


@dataclass(frozen=True)
class _Part:
    """A block of a page; `small` where it is set smaller than most text, as notes are; `first` of its column."""

    number: int
    text: str
    table: bool = False
    small: bool = False
    before: str = PARAGRAPH
    first: bool = False


def pieces_of_pages(pages: Sequence[Page]) -> Iterator[Piece | Lost]:
    """Yields the paragraphs and tables of a document in reading order, running heads and feet left out."""
    pages = _without_running(pages)
    known = [x for page in pages for x in gutters(page.runs)]
    words = Words(line.text for page in pages for line in lines_of(page.runs))
    usual = median([run.height for page in pages for run in page.runs] or [0.0])
    parts: list[_Part | Lost] = []
    for page in pages:
        if page.lost:
            parts.append(Lost(f"page {page.number}", page.lost))
        parts += _parts(page, known, words, usual)
    yield from _pieces(parts, words)


def _without_running(pages: Sequence[Page]) -> list[Page]:
    """Returns the pages without lines that several of them repeat at the same height, and without page numbers."""
    lines = [lines_of(page.runs) for page in pages]
    outer = [_outermost(some) for some in lines]
    found = running([[(line.base, line.text) for line in some] for some in outer])
    usual = median([run.height for page in pages for run in page.runs] or [0.0])
    kept = []
    for page, every, some, repeated in zip(pages, lines, outer, found, strict=True):
        places = {n for n in repeated if some[n].height < 1.15 * usual}  # what is larger is a title
        places -= _of_tables(page, every, some, places)
        gone = {id(run) for n in _from_the_edges(some, places) for run in some[n].runs}
        kept.append(replace(page, runs=tuple(run for run in page.runs if id(run) not in gone)))
    return kept


def _of_tables(page: Page, lines: Sequence[Line], outer: Sequence[Line], places: set[int]) -> set[int]:
    """Returns those places of outer lines that stand in a ruled table of which other lines do not repeat."""
    running = {id(outer[n]) for n in places}
    found = set[int]()
    for grid in grids(page.rules) if places else ():
        inside = {id(line) for line in lines if any(grid.holds(run) for run in line.runs)}
        if not inside <= running:
            found |= {n for n in places if id(outer[n]) in inside}
    return found


def _outermost(lines: Sequence[Line]) -> list[Line]:
    return [*lines[:OUTER], *lines[max(OUTER, len(lines) - OUTER) :]]


def _from_the_edges(lines: Sequence[Line], places: set[int]) -> set[int]:
    """Returns those places that no other line parts from the top or from the bottom of the page."""
    top, bottom = 0, len(lines)
    while top in places:
        top += 1
    while bottom - 1 in places:
        bottom -= 1
    return {n for n in places if n < top or n >= bottom}


def _parts(page: Page, known: Sequence[float], words: Words, usual: float) -> Iterator[_Part]:
    """Yields the blocks of a page in reading order."""
    tables, runs = _ruled(page, words)
    for group in in_order(runs, known):
        first = True
        for is_table, lines in groupby(_apart(lines_of(group)), lambda line: line.text.startswith(TABLE)):
            if is_table:
                yield from (_Part(page.number, tables[int(line.text[1:])], table=True) for line in lines)
                continue
            for block in paragraphs(list(lines)):
                yield replace(_part(block, page.number, words, usual), first=first)
                first = False


def _part(block: Block, number: int, words: Words, usual: float) -> _Part:
    if block.table is not None:
        return _Part(number, markdown(block.table), table=True)
    text = ""
    for line in block.lines:
        text = words.joined(text, line.text)
    return _Part(number, text, small=block.height < 0.9 * usual, before="\n" if block.tight else PARAGRAPH)


def _apart(lines: Sequence[Line]) -> Iterator[Line]:
    """Yields lines; one that holds a table and text beside it in parts."""
    for line in lines:
        if any(run.text.startswith(TABLE) for run in line.runs):
            yield from (Line((run,)) for run in line.runs)
        else:
            yield line


def _ruled(page: Page, words: Words) -> tuple[list[str], list[Run]]:
    """Returns the ruled tables of a page as Markdown, and its runs with one for each of these tables."""
    runs, tables = list(page.runs), list[str]()
    for grid in grids(page.rules):
        inside = [run for run in runs if grid.holds(run)]
        held = {id(run) for run in inside}
        if text := _cells(grid, inside, words):
            runs = [run for run in runs if id(run) not in held]
            height = median(run.height for run in inside)
            runs.append(Run(f"{TABLE}{len(tables)}", grid.xs[0], grid.xs[-1], grid.ys[-1] - height, height))
            tables.append(text)
    return tables, runs


def _cells(grid: Grid, runs: Sequence[Run], words: Words) -> str:
    """Returns the table's text; "" where fewer than two cells have any."""
    held: dict[tuple[int, int], list[Run]] = {}
    for run in runs:
        held.setdefault(grid.cell(run), []).append(run)
    if len(held) < 2:
        return ""
    rows = [[""] * (len(grid.xs) - 1) for _ in range(len(grid.ys) - 1)]
    for (row, column), some in held.items():
        for line in lines_of(some):
            rows[row][column] = words.joined(rows[row][column], line.text)
    return markdown([[cell.replace(HYPHEN, "-") for cell in row] for row in rows])


def _pieces(parts: Sequence[_Part | Lost], words: Words) -> Iterator[Piece | Lost]:
    """Yields the blocks as pieces; where a paragraph goes on in a later one, the two are one paragraph."""
    waiting = [part for part in parts if isinstance(part, _Part) and part.text.strip()]
    yield from (part for part in parts if isinstance(part, Lost))
    while waiting:
        part = waiting.pop(0)
        text, before = part.text, part.before
        place = part.number
        while True:
            nxt = _continued(part, text, waiting)
            if nxt is None:
                break
            follower = waiting.pop(nxt)
            joined = words.joined(text, follower.text)
            if follower.number == place:
                text = joined
            else:
                cut = len(joined) - len(follower.text.lstrip())
                yield Piece(joined[:cut].rstrip().replace(HYPHEN, "-"), f"page {place}", before)
                before = " " if joined[:cut].endswith(" ") else ""
                text, place = joined[cut:], follower.number
            part = replace(follower, text=text)
        yield Piece(text.replace(HYPHEN, "-"), f"page {place}", before)


def _continued(part: _Part, text: str, waiting: Sequence[_Part]) -> int | None:
    """Returns the place of the block that a paragraph goes on with, past notes and tables; None where there is none."""
    if part.table or part.small:
        return None
    for n, other in enumerate(waiting[:6]):
        if other.number > part.number + 1:
            return None
        if other.table or other.small:
            continue
        return n if other.first and goes_on(text, other.text) else None
    return None
