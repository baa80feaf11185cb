"""Finds what can be asked for in an English sentence: names, numbers, dates and terms."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from foci.corpus.sentences import names_of, one_line
from foci.corpus.split import Span

FactKind = Literal["date", "month", "year", "weekday", "time", "percent", "amount", "version", "number", "term", "name"]

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
NUMBERS = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40",
    "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
}  # fmt: skip
"""Numbers that are looked for as words, and their digits."""
_SMALL = "|".join(NUMBERS)
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
    "amount": r"(?:\bUS ?)?[$\u20ac\u00a3]\d[\d,]*(?:\.\d+)?(?: (?:million|billion|thousand))?\b",
    "version": r"(?<=[A-Za-z] )v?\d+(?:\.\d+)+\w*\b",
    "number": rf"(?<![\w.,:/-])\d[\d,]*(?:\.\d+)?(?: (?:million|billion|thousand|hundred))?\b(?![-:/.]\d|[\w%-])"
    rf"|\b(?:{_SMALL})(?: (?:million|billion|thousand|hundred))?\b(?!-)",
}
_GROUPS: dict[FactKind, str] = {
    **dict.fromkeys(("date", "month", "year", "weekday", "time"), "time"),
    **dict.fromkeys(("percent", "amount", "version", "number"), "number"),
}
DETERMINERS = ("The ", "A ", "An ", "Our ", "Your ", "Each ", "Every ", "All ", "Any ", "Most ", "Some ", "Both ")
_FIRST = re.compile(
    r"(?:A|Above|According|After|All|Also|Although|An|And|Any|As|At|Because|Before|Below|Besides|Both|But|By|Despite|"
    r"During|Each|Every|Following|For|From|Given|Hence|How|If|In|Instead|Its|Just|Later|Like|Most|Near|No|Not|Now|"
    r"Of|On|Once|Only|Or|Our|Over|Perhaps|Since|So|Some|Soon|Such|That|Then|There|Though|Through|Throughout|Thus|To|Today|"
    r"Together|Under|Unless|Unlike|Until|Upon|Use|Via|What|When|Where|Whether|Which|While|Why|With|Within|Without|"
    r"Your) "
)
_FOUND = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
_CODE = re.compile(r"(?<!:ref:)(?<!:doc:)(?P<mark>`+)(?P<code>[^`\n]+)(?P=mark)(?!_)")
_CHANGE = r"(?:refs:? ?)?(?:#|gh-|PR ?#?|bpo-|(?:issue|ticket) )\d+[,;\s]*|\d{1,3}"
_BEFORE_CODE = (
    (re.compile(r"^\s*(?:[-*+\u2022>]|\d{1,3}[.)]|#{1,6})\s+(?:\[[ x]\]\s+)?"), ""),  # item, quotation, heading
    (re.compile(r"(?:\[\d{1,3}\]){2,}"), ""),  # notes
    (re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])"), r"\1"),  # link
    (re.compile(r":(pep|rfc|issue|ticket|cve)(?:-\w+)?:`([^`]+)`"), r"\1 \2"),  # role of reStructuredText
    (re.compile(r":[\w:]+:`~?([^`<]+?)(?: <[^>]*>)?`"), r"`\1`"),
    (re.compile(r"`([^`<]+?)(?: <[^>]*>)?`_{1,2}"), r"\1"),
)
_BESIDE_CODE = (
    (re.compile(r"(?<!\w)(\*\*|__|\*|_)(?=\S)(.+?)(?<=\S)\1(?!\w)"), r"\2"),  # emphasis
    (re.compile(r"(?<=\w)__?(?=[\s.,;:)!?]|$)"), ""),  # reference
    (re.compile(r"(?<=\S)(?:\^\[[^\]\s]{1,12}\]|\[\^[\w-]{1,30}\])"), ""),  # a note
    (re.compile(r"""(?<=[.,;:!?)\]"”»])[⁰¹²³⁴-⁹]+"""), ""),  # a raised note
    (re.compile(rf"\s*[(\[]\s*(?:{_CHANGE})+[)\]]"), ""),  # number of a change, a note
)
_AFTER_CODE = (
    (re.compile(r"^(?:issue |ticket |gh-|bpo-|#)\d+:\s+(?=[A-Z`])"), ""),  # number of a change
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
    def group(self) -> str:
        """The group of its probe, within which answers can be exchanged: "time", "number" or "name".

        Answers stand once, so that finer groups would make a guess of the commonest answer look good.
        """
        return _GROUPS.get(self.kind, "name")

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
    text = _changed(one_line(sentence), _BEFORE_CODE)
    parts, at = list[str](), 0
    for code in _CODE.finditer(text):
        parts += [_changed(text[at : code.start()], _BESIDE_CODE), code["code"].strip("`")]
        at = code.end()
    return _changed("".join([*parts, _changed(text[at:], _BESIDE_CODE)]), _AFTER_CODE).strip()


def _changed(text: str, patterns: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, instead in patterns:
        text = pattern.sub(instead, text)
    return text


def facts_of(sentence: str, known: frozenset[str], small: Collection[str] = ()) -> list[Fact]:
    """Returns all that can be asked for in a sentence, in order.

    `known` are words that are names wherever they stand, `small` those that stand in the corpus in small letters.

    >>> [(f.answer, f.kind) for f in facts_of("On 3 May 1999 old Ada Bell paid 20 francs for `tea`.", frozenset())]
    [('3 May 1999', 'date'), ('Ada Bell', 'name'), ('20', 'number'), ('tea', 'term')]
    """
    text = plain(sentence)
    codes = {found["code"].strip("`~") for found in _CODE.finditer(one_line(sentence))}
    found: list[Fact] = []
    names = list(_joined(text, names_of(text, known), small))
    begins = any(start == 0 for start, _ in names) and not text.startswith(DETERMINERS)
    for start, end, kind in _spans(text, codes, names):
        if not any(start < other.end and end > other.start for other in found):
            found.append(Fact(text, start, end, kind, begins))
    return sorted(found, key=lambda fact: fact.start)


def _spans(text: str, codes: set[str], names: Sequence[Span]) -> Iterator[tuple[int, int, FactKind]]:
    """Yields characters [start, end) and kinds; where two overlap, the first counts."""
    for code in sorted(codes):
        if re.fullmatch(r"[\w.-]*[A-Za-z][\w.-]*(?:\(\))?", code) and text.count(code) == 1:
            yield text.index(code), text.index(code) + len(code), "term"
    for match in _FOUND.finditer(text):
        yield match.start(), match.end(), match.lastgroup  # type: ignore[misc]
    for start, end in names:
        if not text[start:end].isdigit():
            yield start, end, "name"


def _joined(text: str, names: Sequence[Span], small: Collection[str]) -> Iterator[Span]:
    """Yields names, those that "of", "&" or a hyphen joins as one: "University of Bern".

    A first word of the sentence that is written in small letters elsewhere is no part of a name.
    """
    whole: Span | None = None
    for begin, end in names:
        first = _FIRST.match(text[begin:end])
        if first is None and begin == 0 and text[:end].partition(" ")[0].lower() in small:
            first = re.match(r"\S+ ?", text[:end])
        start = begin + len(first[0]) if first else begin
        if not any(letter.isupper() for letter in text[start:end]):
            continue
        if whole and re.fullmatch(r" of | of the | & | de | du | van | von |\u2013|-", text[whole[1] : start]):
            whole = whole[0], end
            continue
        if whole:
            yield whole
        whole = start, end
    if whole:
        yield whole
