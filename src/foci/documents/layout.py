"""Puts the text of a page into reading order: runs of characters to lines, columns and paragraphs.

Coordinates are points, x to the right and y upwards, as in PDF.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from foci.documents.repair import HYPHEN

EM = 0.85
"""The width of an em as a share of a line's height (ascent and descent of its font)."""
GUTTER = 0.7
"""The narrowest gap between two columns, in em."""
TABLE_ROWS = 3
"""Rows of an unruled table, at least: in justified text, two lines may have gaps in the same places by chance."""
MANY = 60
"""Runs of a page above which columns are looked for only at the places where most of them begin."""
PLACES = 24
"""The number of these places, in whole points."""
SLACK = 0.3
"""Points by which the lines of a column may begin at different places."""


@dataclass(frozen=True)
class Run:
    """Characters side by side on one baseline: text, left and right edge, baseline, height of the font.

    `leftward` says that its script is written from right to left.
    """

    text: str
    left: float
    right: float
    base: float
    height: float
    leftward: bool = False

    @property
    def em(self) -> float:
        """The width of an em, in points."""
        return EM * self.height


@dataclass(frozen=True)
class Line:
    """Runs on one baseline, from left to right."""

    runs: tuple[Run, ...]

    @property
    def text(self) -> str:
        """The text of the runs, with a space between those that are apart."""
        leftward = sum(run.leftward for run in self.runs) > len(self.runs) / 2
        runs = self.runs[::-1] if leftward else self.runs
        said = runs[0].text
        for before, run in pairwise(runs):
            apart = max(run.left - before.right, before.left - run.right) > 0.12 * run.em
            said += " " * (apart and not said.endswith(" ") and not run.text.startswith(" ")) + run.text
        return said.strip()

    @property
    def left(self) -> float:
        """The left edge."""
        return min(run.left for run in self.runs)

    @property
    def right(self) -> float:
        """The right edge."""
        return max(run.right for run in self.runs)

    @property
    def base(self) -> float:
        """The baseline of most characters."""
        return max(self.runs, key=lambda run: len(run.text)).base

    @property
    def height(self) -> float:
        """The height of the font of most characters."""
        return max(self.runs, key=lambda run: len(run.text)).height

    @property
    def cells(self) -> list[Run]:
        """The runs, where those that are a word's space apart are one."""
        made: list[Run] = []
        for run in self.runs:
            if made and run.left - made[-1].right < 1.2 * run.em:
                text = Line((made[-1], run)).text
                made[-1] = Run(text, made[-1].left, max(run.right, made[-1].right), run.base, run.height)
            else:
                made.append(run)
        return made


@dataclass
class Block:
    """Lines of one paragraph, or a table; `tight` where it follows the one before as the next line would."""

    lines: list[Line] = field(default_factory=list)
    table: list[list[str]] | None = None
    tight: bool = False

    @property
    def height(self) -> float:
        """The height of the font of most lines; 0 for a table."""
        return median(line.height for line in self.lines) if self.lines else 0.0


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Returns lines from top to bottom: runs whose baselines are about the same."""
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: -run.base):
        for group in groups[-4:]:
            reach = 0.4 * max(run.height, *(other.height for other in group))
            near = [other for other in group if abs(other.base - run.base) <= reach]
            clear = all(
                run.left >= other.right - 0.3 * run.em or run.right <= other.left + 0.3 * run.em for other in group
            )
            if near and clear:
                group.append(run)
                break
        else:
            groups.append([run])
    made = [Line(tuple(sorted(group, key=lambda run: run.left))) for group in groups]
    return sorted(made, key=lambda line: -line.base)


def in_order(runs: Sequence[Run], known: Sequence[float] = ()) -> list[list[Run]]:
    """Returns groups of runs, each one column wide, in reading order.

    `known` are gutters (x) of other pages of the document: there a column may have a single line.
    """
    found = _columns(runs, known)
    if found is None:
        return [list(runs)] if runs else []
    gutter, bands = found
    groups: list[list[Run]] = []
    for is_band, part in bands:
        if is_band:
            for side in ([run for run in part if run.right <= gutter], [run for run in part if run.right > gutter]):
                groups += in_order(side, known)
        else:
            groups += in_order(part, known)
    return groups


def gutters(runs: Sequence[Run]) -> list[float]:
    """Returns the gutters (x) of a page that stand between columns of three lines or more."""
    found = _columns(runs, ())
    if found is None:
        return []
    gutter, bands = found
    sides = [run for is_band, part in bands for run in part if is_band]
    left, right = ([r for r in sides if r.right <= gutter], [r for r in sides if r.right > gutter])
    return [gutter, *gutters(left), *gutters(right)]


Bands = list[tuple[bool, list[Run]]]


def _columns(runs: Sequence[Run], known: Sequence[float]) -> tuple[float, Bands] | None:
    """Returns the gutter that divides most runs, and the runs from top to bottom in parts that it divides or not."""
    if len(runs) < 2:
        return None
    em = median(run.em for run in runs)
    best: tuple[int, float, Bands] | None = None
    for gutter in _candidates(runs, em):
        near = any(abs(gutter - x) < 0.3 * em for x in known)
        bands = _bands(runs, gutter, em, near)
        count = sum(len(part) for is_band, part in bands if is_band)
        if count and (best is None or count > best[0]):
            best = count, gutter, bands
    return best and (best[1], best[2])


def _candidates(runs: Sequence[Run], em: float) -> list[float]:
    """Returns places just left of where runs begin, which most of them leave free."""
    found: list[float] = []
    begun = Counter(round(run.left) for run in runs)
    lefts = {run.left for run in runs}
    if len(runs) > MANY:  # the lines of a column begin at one place
        often = sorted(begun, key=lambda x: -sum(begun[x + n] for n in (-1, 0, 1)))[:PLACES]
        lefts = {left for left in lefts if round(left) in often}
    for left in sorted(lefts):
        x = left - GUTTER * em / 2
        crossing = sum(run.left < x < run.right for run in runs)
        before = sum(run.right <= x for run in runs)
        if before and crossing <= 0.5 * len(runs) and (not found or x - found[-1] > 0.5):
            found.append(x)
    return found


def _bands(runs: Sequence[Run], gutter: float, em: float, known: bool) -> Bands:
    """Returns the runs from top to bottom, in parts that the gutter divides (True) or that cross it (False)."""
    half = GUTTER * em / 2
    parts: Bands = []
    for run in sorted(runs, key=lambda run: (-run.base, run.left)):
        clear = run.right <= gutter - half + SLACK or run.left >= gutter + half - SLACK
        if parts and parts[-1][0] == clear:
            parts[-1][1].append(run)
        else:
            parts.append((clear, [run]))
    made: Bands = []
    for clear, part in parts:
        is_band = clear and _two_columns(part, gutter, known)
        trimmed = _trimmed(part, gutter) if is_band else [(False, part)]
        for flag, some in trimmed:
            if made and not flag and not made[-1][0]:
                made[-1][1].extend(some)
            elif some:
                made.append((flag, some))
    return made


def _two_columns(part: Sequence[Run], gutter: float, known: bool) -> bool:
    """Says whether runs on both sides of a gutter are prose in columns, no table."""
    sides = [lines_of(side) for side in ([r for r in part if r.right <= gutter], [r for r in part if r.right > gutter])]
    if not all(sides):
        return False
    few, many = sorted(len(side) for side in sides)
    if not known and (few < 2 or many < 3):
        return False
    if _ragged(sides[1], gutter):
        return False
    prose = [_prose(side) for side in sides]
    if known:
        return any(prose) or many < 3
    return all(prose) and max(_full(side) for side in sides) >= 0.6


def _prose(lines: Sequence[Line]) -> bool:
    """Says whether the lines of a column have several words, or are many that fill it."""
    if median(len(line.text.split()) for line in lines) >= 2.5:
        return True
    return len(lines) >= 8 and median(len(line.text) for line in lines) >= 12 and _full(lines) >= 0.75


def _ragged(lines: Sequence[Line], gutter: float) -> bool:
    """Says whether few lines right of a gutter begin at the same place: then it is a row of spaces within lines."""
    lefts = [line.left for line in lines]
    edge = min(lefts, key=lambda x: -sum(abs(x - other) < 1 for other in lefts))
    aligned = sum(abs(x - edge) < 1 for x in lefts)
    return aligned < max(min(3, len(lefts)), 0.3 * len(lefts)) or edge - gutter > 1.5 * EM * lines[0].height


def _full(lines: Sequence[Line]) -> float:
    """Returns how much of a column's width its lines fill on average, 0 to 1."""
    left, right = min(line.left for line in lines), max(line.right for line in lines)
    return sum(line.right - line.left for line in lines) / (len(lines) * max(right - left, 1.0))


def _trimmed(part: list[Run], gutter: float) -> Bands:
    """Returns the band, and before and after it the lines of one side alone that are far from it (heads, notes)."""
    left, right = ([r for r in part if r.right <= gutter], [r for r in part if r.right > gutter])
    top = min(max(r.base for r in left), max(r.base for r in right))
    reach = 3 * median(r.height for r in part)
    above = [r for r in part if r.base > top + reach]
    inside = [r for r in part if r.base <= top + reach]
    gap = min((r.base for r in above), default=0.0) - max(r.base for r in inside) if above else 0.0
    if not above or gap < 1.8 * median(r.height for r in part):
        return [(True, part)]
    return [(False, above), (True, inside)]


def paragraphs(lines: Sequence[Line]) -> Iterator[Block]:
    """Yields the paragraphs and the unruled tables of one column, from top to bottom."""
    at, edge = 0, _edge(lines)
    tight = False
    while at < len(lines):
        if count := _table_length(lines, at):
            yield _table(lines[at : at + count])
            at += count
            tight = False
            continue
        end, begun = at + 1, tight
        tight = False
        while end < len(lines) and not _table_length(lines, end) and not _breaks(lines, at, end):
            if tight := _has_room(lines[end - 1], lines[end], edge):
                break
            end += 1
        yield Block(lines=list(lines[at:end]), tight=begun)
        at = end


def _edge(lines: Sequence[Line]) -> float:
    """Returns the right edge of a column: nine lines of ten end there or before."""
    return sorted(line.right for line in lines)[int(0.9 * (len(lines) - 1))] if lines else 0.0


def _has_room(before: Line, line: Line, edge: float) -> bool:
    """Says whether the first word of a line would have fitted into the one before: then it was broken on purpose."""
    if before.text.endswith((HYPHEN, "-", "\u00ad")) or not before.text:
        return False
    word = line.text.split()[0]
    width = len(word) * (line.right - line.left) / max(len(line.text), 1)
    return edge - before.right > 1.15 * width + EM * line.height


def _breaks(lines: Sequence[Line], first: int, at: int) -> bool:
    """Says whether a new paragraph begins at line `at`; the one before it began at line `first`."""
    before, line = lines[at - 1], lines[at]
    column = lines[max(0, at - 12) : at + 12]
    right, left = max(one.right for one in column), min(one.left for one in column)
    em = EM * line.height
    if abs(line.height - before.height) > 0.12 * before.height:
        return True
    steps = [one.base - two.base for one, two in pairwise(column)]
    usual = min((step for step in steps if step > 0.5 * line.height), default=line.height)
    if before.base - line.base > 1.3 * usual + 0.5:
        return True
    if _marked(line.text):
        return True
    short = right - before.right > max(0.15 * (right - left), 3 * em)
    ended = before.text.endswith((".", "!", "?", ":", ".”", '."', "。"))
    if short and ended:
        return True
    indent = line.left - min(one.left for one in column)
    hanging = before.left - line.left > 0.8 * em and at - first == 1  # the first line of this paragraph is indented
    return 0.8 * em < indent < 6 * em and before.left < line.left - 0.5 * em and ended and not hanging


def _marked(text: str) -> bool:
    """Says whether a line begins with the mark of a list item."""
    head, _, rest = text.partition(" ")
    if not rest:
        return False
    if head in ("•", "▪", "‣", "◦", "–", "—", "-", "*", "○", "■", "●", "·"):
        return True
    core = head.rstrip(".)").lstrip("(")
    return head != core and len(head) - len(core) <= 2 and len(core) <= 3 and (core.isdigit() or len(core) == 1)


def _table_length(lines: Sequence[Line], at: int) -> int:
    """Returns how many lines from `at` on are rows of one unruled table; 0 where there is none."""
    first = lines[at].cells
    if len(first) < 2:
        return 0
    end = at
    while end < len(lines) and _aligned(first, lines[end].cells):
        end += 1
    rows = lines[at:end]
    columns = _columns_of(rows)
    wide = all(two[0] - one[1] > EM * first[0].height for one, two in pairwise(columns))
    shaped = len(rows) >= TABLE_ROWS and len(columns) > 1 and wide and _short(rows)
    return len(rows) if shaped and not _justified(rows, lines[max(0, at - 12) : end + 12]) else 0


def _justified(rows: Sequence[Line], column: Sequence[Line]) -> bool:
    """Says whether lines of few words are set apart to fill a column, as the lines around them fill it."""
    left, right = min(line.left for line in column), max(line.right for line in column)
    filled = all(row.left - left < 1 and right - row.right < 1 for row in rows)
    digits = sum(row.cells[-1].text.strip(".,%")[-1:].isdigit() for row in rows)
    return filled and len(column) > len(rows) and digits < 0.5 * len(rows)


def _short(rows: Sequence[Line]) -> bool:
    cells = [cell for row in rows for cell in row.cells]
    return median(len(cell.text.split()) for cell in cells) <= 4 and median(len(c.text) for c in cells) <= 30


def _aligned(first: Sequence[Run], cells: Sequence[Run]) -> bool:
    """Says whether cells stand under those of a first row, by their left edges, right edges or middles."""
    if len(cells) < 2 or len(cells) > len(first) + 1:
        return False
    hits = sum(any(_under(one, two) for two in first) for one in cells)
    return hits >= max(2, len(cells) - 1)


def _under(one: Run, two: Run) -> bool:
    middle = abs(one.left + one.right - two.left - two.right) / 2
    return min(abs(one.left - two.left), abs(one.right - two.right), middle) < 0.5 * two.em


def _columns_of(rows: Sequence[Line]) -> list[tuple[float, float]]:
    """Returns the left and right edges of the columns of an unruled table: cells that overlap share one."""
    columns: list[tuple[float, float]] = []
    for cell in sorted((cell for row in rows for cell in row.cells), key=lambda cell: cell.left):
        if columns and cell.left < columns[-1][1]:
            columns[-1] = (columns[-1][0], max(columns[-1][1], cell.right))
        else:
            columns.append((cell.left, cell.right))
    return columns


def _table(rows: Sequence[Line]) -> Block:
    """Returns the rows of an unruled table as cells."""
    columns = _columns_of(rows)
    table = []
    for row in rows:
        made = [""] * len(columns)
        for cell in row.cells:
            at = max(range(len(columns)), key=lambda n: min(cell.right, columns[n][1]) - max(cell.left, columns[n][0]))
            made[at] = f"{made[at]} {cell.text}".strip()
        table.append(made)
    return Block(table=table)
