"""Characters at their places to runs: the words that stand side by side on one baseline of one column."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from foci.documents.layout import EM, Run
from foci.documents.repair import scripted
from foci.documents.rules import Rule

APART = 0.8
"""The gap in em at which two runs begin, where the words of a line do not all stand as far apart."""
STRETCHED = 2.5
"""The widest gap in em between words that are set apart to fill a line."""
_LIGATURES: dict[str, str | int | None] = {"ﬁ": "fi", "ﬂ": "fl", "ﬀ": "ff", "ﬃ": "ffi", "ﬄ": "ffl", "\u00a0": " "}


class Letter(NamedTuple):
    """A character: its code, its edges, baseline and height as if the page were turned upright, and its angle.

    `spaced` says that white space stands before it. The code of an astral character is half of a surrogate pair.
    """

    code: int
    left: float
    right: float
    base: float
    height: float
    angle: int = 0
    spaced: bool = False

    @property
    def em(self) -> float:
        """The width of an em, in points."""
        return EM * self.height

    @property
    def leftward(self) -> bool:
        """Says whether its script is written from right to left."""
        return self.code >= 0x590 and unicodedata.bidirectional(chr(self.code)) in ("R", "AL")


@dataclass
class _Building:
    """A run that is being read: its first and last character, its edges, and its parts with their shifts."""

    first: Letter
    parts: list[tuple[int, str]] = field(default_factory=list)
    left: float = 0.0
    right: float = 0.0

    def __post_init__(self) -> None:
        self.left, self.right, self.last = self.first.left, self.first.right, self.first
        self.heights, self.level = [self.first.height], self.first.base
        self.parts.append((0, chr(self.first.code)))

    def shift(self, letter: Letter) -> int | None:
        """Returns 1 for a superscript, -1 for a subscript, 0 for what stands on the baseline; None for another line."""
        up = (letter.base - self.level) / self.first.height
        if letter.height < 0.85 * self.first.height and (0.12 < up < 0.6 or -0.6 < up < -0.05):
            return 1 if up > 0 else -1
        return 0 if abs(up) < 0.15 else None

    def takes(self, letter: Letter, reach: float, walls: Sequence[Rule]) -> bool:
        """Says whether a character goes on this run, and adds it if so; `reach` is the widest gap in points."""
        em, shift = self.first.em, self.shift(letter)
        if shift is None or letter.angle != self.first.angle:
            return False
        gap = self.left - letter.right if letter.leftward else letter.left - self.right
        same_glyph = letter.left == self.last.left and letter.right == self.last.right
        if not (same_glyph or -0.5 * em < gap < reach) or (letter.spaced and self.walled(letter, walls)):
            return False
        self.add(letter, shift, " " * (not same_glyph and (letter.spaced or gap > 0.35 * em)))
        return True

    def walled(self, letter: Letter, walls: Sequence[Rule]) -> bool:
        """Says whether an upright rule stands between the run and a character."""
        low, high = self.right - 1, letter.left + 1
        return any(low < wall.at < high and wall.start < letter.base + 2 < wall.end for wall in walls)

    def add(self, letter: Letter, shift: int, space: str) -> None:
        """Adds a character, after a space where one is due."""
        if shift == self.parts[-1][0]:
            self.parts[-1] = (shift, self.parts[-1][1] + space + chr(letter.code))
        else:
            self.parts += [(0, space)] * bool(space) + [(shift, chr(letter.code))]
        self.left, self.right = min(self.left, letter.left), max(self.right, letter.right)
        self.last = letter
        if not shift:
            self.heights.append(letter.height)
            self.level = letter.base  # a scanned line may climb

    def run(self) -> Run:
        """Returns the finished run."""
        said = "".join(text if not shift else scripted(text, shift > 0) for shift, text in self.parts)
        return Run(_clean(said), self.left, self.right, self.first.base, median(self.heights), self.first.leftward)


def runs_of(letters: Sequence[Letter], walls: Sequence[Rule]) -> list[Run]:
    """Returns the runs of a page, from its characters in the page's own order.

    `walls` are its upright rules, which part runs. What is written at another angle than most, as a stamp in the margin
    is, is left out.
    """
    angles = Counter(letter.angle for letter in letters).most_common(1)
    upright = [letter for letter in letters if letter.angle == angles[0][0]]
    made: list[Run] = []
    building: _Building | None = None
    for letter, reach in zip(upright, _reaches(upright), strict=True):
        if building is not None and building.takes(letter, reach, walls):
            continue
        if building is not None:
            made.append(building.run())
        building = _Building(letter)
    if building is not None:
        made.append(building.run())
    return [run for run in made if run.text.strip()]


def _reaches(letters: Sequence[Letter]) -> Iterator[float]:
    """Yields the widest gap before each character, in points: wider in lines whose words all stand as far apart."""
    line: list[Letter] = []
    for letter in letters:
        if line and not _follows(line[-1], letter):
            yield from [_reach(line)] * len(line)
            line = []
        line.append(letter)
    yield from [_reach(line)] * len(line)


def _follows(before: Letter, letter: Letter) -> bool:
    """Says whether a character stands on the line of the one before, to its right."""
    return abs(letter.base - before.base) < 0.5 * before.height and letter.left >= before.left - 0.1


def _reach(line: Sequence[Letter]) -> float:
    if not line:
        return 0.0
    em = line[0].em
    gaps = [letter.left - before.right for before, letter in pairwise(line) if letter.spaced]
    digits = sum(chr(letter.code).isdigit() for letter in line)
    even = len(gaps) > 1 and max(gaps) <= 1.25 * min(gaps) and max(gaps) <= STRETCHED * em
    return max(APART * em, 1.1 * max(gaps)) if even and digits < 0.4 * len(line) else APART * em


def _clean(text: str) -> str:
    """Returns text whose surrogate pairs are characters and whose typographic ligatures are letters."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.translate(str.maketrans(_LIGATURES))
