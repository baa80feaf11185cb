"""Finds what can be asked for in an English sentence: names, numbers, dates and terms."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from foci.corpus.sentences import names_of, one_line
from foci.corpus.split import Span

FactKind = Literal["date", "month", "year", "weekday", "time", "percent", "amount", "version", "number", "term", "name"]

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_SMALL = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety"
_WHEN = (
    r"(?<=\bin )|(?<=\bof )|(?<=\bby )|(?<=\bto )|(?<=\buntil )|(?<=\bsince )|(?<=\bfrom )|(?<=\bafter )"
    r"|(?<=\bbefore )|(?<=^In )|(?<=^Since )|(?<=^Until )|(?<=^By )|(?<=\bevery )|(?<=\bduring )|(?<=\beach )"
)
_PATTERNS: dict[FactKind, str] = {
    "date": rf"\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? (?:{_MONTHS})(?:,? \d{{4}})?\b"
    rf"|\b(?:{_MONTHS}) \d{{1,2}}(?:st|nd|rd|th)?\b(?:,? \d{{4}}\b)?|\b\d{{4}}-\d{{2}}-\d{{2}}\b",
    "month": rf"\b(?:{_MONTHS}) \d{{4}}\b|(?:{_WHEN})(?:{_MONTHS})\b",
    "weekday": rf"\b(?:{_DAYS})s?\b",
    "time": r"\b\d{1,2}(?:[:.]\d{2})? ?[ap]\.?m\b\.?|\b\d{1,2}:\d{2}\b(?!:)",
    "year": rf"(?:{_WHEN})(?:1[1-9]|20)\d\d\b(?![-\u2013/]\d| [A-Z])",
    "percent": r"\b\d[\d,]*(?:\.\d+)? ?(?:%|per ?cent\b)",
    "amount": r"[$\u20ac\u00a3]\d[\d,]*(?:\.\d+)?(?: (?:million|billion|thousand))?\b",
    "version": r"(?<=[A-Za-z] )v?\d+(?:\.\d+)+\w*\b",
    "number": rf"(?<![\w.,:/-])\d[\d,]*(?:\.\d+)?(?: (?:million|billion|thousand|hundred))?\b(?![-:/.]\d|[\w%-])"
    rf"|\b(?:{_SMALL})(?: (?:million|billion|thousand|hundred))?\b(?!-)",
}
DETERMINERS = ("The ", "A ", "An ", "Our ", "Your ", "Each ", "Every ", "All ", "Any ", "Most ", "Some ", "Both ")
_DETERMINED = re.compile(r"(?:(?:A|An|Our|Your|Each|Every|All|Any|Most|Some|Both|No) )?")
_FOUND = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
_CODE = re.compile(r"(`+)(?P<code>[^`\n]+)\1")
_MARKUP = (
    (re.compile(r"^\s*(?:[-*+\u2022>]|\d{1,3}[.)]|#{1,6})\s+(?:\[[ x]\]\s+)?"), ""),  # item, quotation, heading
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # link
    (re.compile(r"(?<!\w)(\*\*|__|\*|_)(?=\S)(.+?)(?<=\S)\1(?!\w)"), r"\2"),  # emphasis
    (re.compile(r":\w+:`~?([^`]+)`"), r"\1"),  # role of reStructuredText
    (re.compile(r"``([^`]*)``|`([^`<]*)(?: <[^>]*>)?`_{1,2}|`([^`]*)`"), r"\1\2\3"),  # code, link
    (re.compile(r"\s*[(\[]\s*(?:(?:#|gh-|PR ?#?|bpo-)\d+[,;\s]*|\d{1,3})+[)\]]"), ""),  # number of a change, a note
    (re.compile(r"\s+([,.;:!?])(?=\s|$)"), r"\1"),  # a space before a mark
)


@dataclass(frozen=True)
class Fact:
    """A sentence on one line without markup, and the characters [start, end) of the answer in it."""

    sentence: str
    start: int
    end: int
    kind: FactKind
    begins_with_name: bool = False
    """Whether the first word of the sentence is a name, which keeps its capital inside of one."""

    @property
    def answer(self) -> str:
        """The answer as it stands in the sentence."""
        return self.sentence[self.start : self.end]

    @property
    def before(self) -> str:
        """The part of the sentence before the answer."""
        return self.sentence[: self.start]

    @property
    def after(self) -> str:
        """The part of the sentence after the answer."""
        return self.sentence[self.end :]


def plain(sentence: str) -> str:
    """Returns a sentence on one line, without the marks of lists, links, emphasis and code.

    >>> plain("- **Note**: call [Ada](x.md) at `5` (#12).")
    'Note: call Ada at 5.'
    """
    text = one_line(sentence)
    for pattern, instead in _MARKUP:
        text = pattern.sub(instead, text)
    return text.strip()


def facts_of(sentence: str, known: frozenset[str]) -> list[Fact]:
    """Returns all that can be asked for in a sentence, in order. `known` are words that are names wherever they stand.

    >>> [(f.answer, f.kind) for f in facts_of("On 3 May 1999 Ada Bell paid 20 francs for `tea`.", frozenset())]
    [('3 May 1999', 'date'), ('Ada Bell', 'name'), ('20', 'number'), ('tea', 'term')]
    """
    text = plain(sentence)
    codes = {found["code"].strip("`") for found in _CODE.finditer(one_line(sentence))}
    found: list[Fact] = []
    begins = any(start == 0 for start, _ in names_of(text, known)) and not text.startswith(DETERMINERS)
    for start, end, kind in _spans(text, codes, known):
        if not any(start < other.end and end > other.start for other in found):
            found.append(Fact(text, start, end, kind, begins))
    return sorted(found, key=lambda fact: fact.start)


def _spans(text: str, codes: set[str], known: frozenset[str]) -> Iterator[tuple[int, int, FactKind]]:
    """Yields characters [start, end) and kinds; where two overlap, the first counts."""
    for code in sorted(codes):
        if re.fullmatch(r"[\w.-]*[A-Za-z][\w.-]*(?:\(\))?", code) and text.count(code) == 1:
            yield text.index(code), text.index(code) + len(code), "term"
    for match in _FOUND.finditer(text):
        yield match.start(), match.end(), match.lastgroup  # type: ignore[misc]
    for start, end in _joined(text, names_of(text, known)):
        if not text[start:end].isdigit():
            yield start, end, "name"


def _joined(text: str, names: list[Span]) -> Iterator[Span]:
    """Yields names, those that "of", "&" or a hyphen joins as one: "University of Bern"."""
    whole: Span | None = None
    for begin, end in names:
        start = begin + len(_DETERMINED.match(text[begin:end])[0])  # type: ignore[index]
        if whole and re.fullmatch(r" of | of the | & | de | du | van | von |\u2013|-", text[whole[1] : start]):
            whole = whole[0], end
            continue
        if whole:
            yield whole
        whole = start, end
    if whole:
        yield whole
