"""Cuts long texts: at sentence ends first, then at line ends, words, tokens.

The sentence rule is small on purpose. Existing splitters (pySBD, BlingFire: last released in 2021; syntok: three
European languages) try to find every sentence end. A row boundary needs only ends that are certain: a missed end makes
a row a little shorter, a false one separates a fact from its subject. So the rule finds no end where it is in doubt
(abbreviations, initials, ordinals, a lower-case word next).
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[int, int]
"""Characters [start, end) of a text."""

_NOTES = r"(?:\^?\[\^?[\w-]{1,30}\]|[⁰¹²³⁴-⁹]++)*+"
"""Marks of notes, such as [1], ^[1], [^1] and a raised 1."""
_STOP = re.compile(
    rf"""(?<![.!?…])(?P<soft>[.!?…]++)["'”’»)\]}}*_]*+(?:[ \u00a0\u202f]»)?{_NOTES}(?=\s+(?P<next>\S?))"""  # noqa: RUF001
    rf"""|[。！？｡؟۔।॥።။។]++(?P<shut>["'”’)\]」』）】》〉]*+){_NOTES}"""  # noqa: RUF001
    r"""|\n[^\S\n]*+(?=\n)"""
)
_LAST_WORD = re.compile(r"""[^\s("'“‘«\[]*\Z""")  # noqa: RUF001
_PARTICLES = tuple("とのをがにっ")
_NO_END = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]|\d{1,2}")  # initials, "e.g", "U.S", ordinals and list numbers
_ABBREVIATIONS = (
    " dr mr mrs ms prof st sr jr sra mme mlle hr fr gen col capt lt sgt maj cpl adm rev hon sen rep gov pres "
    "vs cf ca al approx est fig figs eq eqs sec ch no nos nr vol vols pp ed eds trans art par op cit ibid "
    "inc ltd co corp bros dept univ assn mt ft ave blvd rd jan feb mar apr jun jul aug sep sept oct nov dec "
    "ph.d m.sc b.sc bzw usw bspw evtl ggf vgl etc viz resp "
    "mio mrd hrsg jh avda ee uu डॉ "
)
_BEFORE_NUMBERS = " abs tel str gem "
"""Words that are abbreviations before a number: Abs. 2, Tel. 030, Str. 5."""


@dataclass(frozen=True)
class Room:
    """The most tokens that a row may hold, and the fewest that are not white space that it should hold.

    `middle` for rows inside of a document, `last` for the one at its end. Where no cut leaves both sides `least_middle`
    and `least_last` tokens, they get at least `need_middle` and `need_last`, without which a part gives no row.
    """

    middle: int
    last: int
    least_middle: int = 1
    least_last: int = 1
    need_middle: int = 1
    need_last: int = 1


def sentence_ends(text: str) -> list[int]:
    """Returns positions just after a sentence (or before an empty line), ascending; none where in doubt.

    The mark of a note (`.[1]`, `.^[1]`, `.[^1]`, a raised 1) belongs to the sentence before it.

    >>> text = "Dr. Ann B. Lee was born in 1990. She weighs 3.5 kg, e.g. little."
    >>> [text[:end] for end in sentence_ends(text + " ")][0]
    'Dr. Ann B. Lee was born in 1990.'
    """
    return [match.end() for match in _STOP.finditer(text) if _is_end(text, match)]


def _is_end(text: str, match: re.Match[str]) -> bool:
    soft, following = match["soft"], match["next"]
    if soft is None:  # after a quotation a Japanese sentence may go on
        return not (match["shut"] and text[match.end() : match.end() + 1] in _PARTICLES)
    if following.islower() or following in (",", ";"):
        return False
    if soft != ".":
        return True
    found = _LAST_WORD.search(text[max(0, match.start() - 24) : match.start()])
    word = found.group().lower() if found else ""
    if following.isdigit() and (f" {word} " in _BEFORE_NUMBERS or (word.endswith("str") and len(word) > 3)):
        return False
    return f" {word} " not in _ABBREVIATIONS and not _NO_END.fullmatch(word)


def cuts(text: str, starts: Sequence[int], room: Room, spans: Sequence[Span] = ()) -> list[int]:
    """Returns positions at which to cut `text` so that every part holds at most its room of tokens.

    `starts[t]` is the first character of token t, ascending. Every row takes as many whole sentences as
    fit; where not one fits it is cut at the last line end that fits, else at a word, else at a token.
    A `span` (an answer; disjoint, ascending) is only cut where it alone is too long.
    """
    levels = _levels(text, starts, spans)
    solid = _solid(text, starts)
    found: list[int] = []
    first, total = next(iter(solid), 0), len(starts)
    while total - first > room.last and len(solid) > 1:
        bounds = _bounds(starts, solid, first, room)
        hits = (_last_within(level, low, high) for low, high in bounds for level in levels)
        at = next((hit for hit in hits if hit is not None), None)
        if at is None:  # one character of more tokens than there is room for
            after = bisect_right(starts, starts[first])
            if after == total:
                break
            at = starts[after]
        found.append(at)
        rest = bisect_left(solid, bisect_left(starts, at))
        if rest == len(solid):  # white space alone is left
            break
        first = solid[rest]
    return found


def _solid(text: str, starts: Sequence[int]) -> list[int]:
    """Returns the tokens, ascending, that are not white space alone; every token of one character begins at it."""
    after = dict(pairwise([*dict.fromkeys(starts), len(text)]))
    return [t for t, start in enumerate(starts) if not text[start : after[start]].isspace()]


def _bounds(starts: Sequence[int], solid: Sequence[int], first: int, room: Room) -> list[tuple[int, int]]:
    """Returns the lowest and highest place of the cut after token `first`, from what is wanted to the last resort."""
    here = bisect_left(solid, first)

    def low(least: int) -> int:
        return starts[solid[min(here + least, len(solid)) - 1]] + 1

    def high(least: int) -> int:
        return starts[min(first + room.middle, solid[-min(least, len(solid))])]

    wanted = high(room.least_last)
    return [
        (low(room.least_middle), wanted),
        (low(room.need_middle), wanted),
        (low(room.need_middle), high(room.need_last)),
        (starts[first] + 1, wanted),
    ]


def _levels(text: str, starts: Sequence[int], spans: Sequence[Span]) -> list[list[int]]:
    """Returns the positions where a cut is allowed, from the best kind to the last resort; each ascending."""
    lines = [match.start() for match in re.finditer(r"\n", text)]
    words = [match.start() for match in re.finditer(r"\s+", text)]
    tokens = sorted(set(starts))
    kinds = [sentence_ends(text), lines, words, tokens]
    return [_outside(kind, spans) for kind in kinds] + [words, tokens]


def _outside(positions: list[int], spans: Sequence[Span]) -> list[int]:
    if not spans:
        return positions
    firsts = [start for start, _ in spans]
    before = (bisect_left(firsts, position) - 1 for position in positions)
    return [p for p, i in zip(positions, before, strict=True) if i < 0 or p >= spans[i][1]]


def _last_within(positions: list[int], low: int, high: int) -> int | None:
    """Returns the last position of an ascending list in [low, high]."""
    index = bisect_right(positions, high) - 1
    return positions[index] if index >= 0 and positions[index] >= low else None


def tighten(text: str, span: Span) -> Span | None:
    """Returns the span without the white space at its edges; None when it holds nothing else.

    >>> tighten("in Paris now", (2, 9))
    (3, 8)
    """
    start, end = span
    part = text[start:end]
    stripped = part.strip()
    begin = start + len(part) - len(part.lstrip())
    return (begin, begin + len(stripped)) if stripped else None


def union(*groups: Sequence[Span]) -> tuple[Span, ...]:
    """Returns all spans as disjoint ones, ascending; spans that overlap become one.

    >>> union([(4, 9), (0, 2)], [(8, 12)])
    ((0, 2), (4, 12))
    """
    merged: list[Span] = []
    for start, end in sorted(span for group in groups for span in group):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
