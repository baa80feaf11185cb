"""Repairs text that was broken for print: hyphens at line ends, lines into paragraphs, running heads and feet."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

HYPHEN = "\x02"
"""Stands at the end of a line for a hyphen of which nobody knows yet whether it belongs to the word."""
_WORD = re.compile(r"[^\W_]+(?:[-‐‑'’][^\W_]+)*")
_COMPOUND = ("self", "well", "half", "quasi", "vice")
"""First parts that English writes with a hyphen, and that no word is divided after."""
_SUSPENDED = ("and", "or", "to", "und", "oder", "bis", "et", "ou", "y", "o", "e", "en", "of")
"""Words that follow a hyphen that stands for a later part: "pre- and post-war"."""
_CLOSING = re.compile(r"[.!?:;…。！？][\"'”’»)\]]*$")
_SCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎"
_PLAIN = "0123456789+-=()ni", "0123456789+-=()"


class Words:
    """The words of a document, counted; they tell whether a hyphen at a line's end belongs to its word."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.counts: Counter[str] = Counter()
        for line in lines:
            found = [match.group() for match in _WORD.finditer(line)]
            if found and line.rstrip().endswith((HYPHEN, "-")):
                found.pop()  # the first half of a word
            self.counts.update(word.casefold().replace("‐", "-").replace("‑", "-") for word in found)
            self.counts.update(part.casefold() for word in found if "-" in word for part in re.split(r"[-‐‑]", word))

    def joined(self, before: str, after: str) -> str:
        """Returns two lines as one; `before` may end with a hyphen, which goes where it only divided a word.

        It stays where the document writes the word with a hyphen elsewhere, before a capital or a digit, after a part
        with a digit or inner capitals, and where both parts are words of the document and their union is not.
        """
        before, after = before.rstrip(), after.lstrip()
        if before.endswith("\u00ad"):
            return before.rstrip("\u00ad") + after
        if before.endswith(("-", HYPHEN, "‐")):
            return self._of_parts(before[:-1], after)
        if not before or not after:
            return before + after
        return before + _between(before[-1], after[0]) + after

    def _of_parts(self, before: str, after: str) -> str:
        first = re.search(r"[^\s]*$", before)
        second = _WORD.match(after)
        head = first.group() if first else ""
        if not head or not head[-1].isalnum():
            return f"{before}- {after}"
        if second is None:
            return f"{before}-{after}" if after and not after[0].isspace() else f"{before}- {after}"
        if second.group().casefold() in _SUSPENDED and self.counts[(head + second.group()).casefold()] == 0:
            return f"{before}- {after}"
        return f"{before}-{after}" if self._stays(head, second.group()) else before + after

    def _stays(self, head: str, second: str) -> bool:
        """Says whether the hyphen between two parts belongs to the word."""
        if re.search(r"[/@.:\\_]", head):
            return True
        core = (_WORD.findall(head) or [head])[-1]
        low, next_low = core.casefold(), second.casefold()
        written, whole = self.counts[f"{low}-{next_low}"], self.counts[low + next_low]
        if written or whole:
            return written > whole or (written == whole and not second.islower())
        if not second[0].islower() or any(letter.isdigit() for letter in core) or "-" in core:
            return True
        if len(core) > 1 and core[1:] != core[1:].lower():
            return True
        if low in _COMPOUND:
            return True
        first_known, second_known = self.counts[low] > 0, self.counts[next_low.partition("-")[0]] > 0
        return first_known and second_known and min(len(low), len(next_low)) >= 3


def _between(last: str, first: str) -> str:
    """Returns what stands between two lines: nothing in scripts without spaces, or after a dash within a number."""
    if _is_wide(last) and _is_wide(first):
        return ""
    return "" if last in "–—/" and (first.isdigit() or last == "/") else " "


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF" and not "\uac00" <= letter <= "\ud7a3"


def goes_on(before: str, after: str) -> bool:
    """Says whether a paragraph that ends with `before` goes on with `after`, in the next column or on the next page."""
    before, after = before.rstrip(), after.lstrip()
    if not before or not after:
        return False
    if before.endswith((HYPHEN, "-", "\u00ad")):
        return after[0].isalnum()
    return not _CLOSING.search(before) and (after[0].islower() or before.endswith((",", "–")))


def scripted(text: str, raised: bool) -> str:
    """Returns a superscript (`raised`) or a subscript as characters of its own, so that 10 to the 6 is not 106.

    Letters of ordinals (5th) stay as they are; whatever has no character of its own follows ^ or _.

    >>> scripted("6", True), scripted("th", True), scripted("max", False)
    ('⁶', 'th', '_max')
    """
    scripts, plain = (_SCRIPTS[0], _PLAIN[0]) if raised else (_SCRIPTS[1], _PLAIN[1])
    wanted = text.replace("−", "-")
    if wanted and all(letter in plain for letter in wanted):
        return wanted.translate(str.maketrans(plain, scripts))
    if wanted.casefold() in (
        "st",
        "nd",
        "rd",
        "th",
        "er",
        "re",
        "e",
        "ème",
        "o",
        "a",
        "º",
        "ª",
        "tm",
        "®",
        "™",
        "*",
        "†",
    ):
        return wanted
    return f"{'^' if raised else '_'}{wanted}" if wanted.strip() else wanted


def normal(text: str) -> str:
    """Returns a line with its numbers as #, to compare running heads: digits, or a Roman numeral that stands alone."""
    spaced = " ".join(text.split())
    return "#" if re.fullmatch(r"[ivxlc]+", spaced) else re.sub(r"\d+", "#", spaced)


def running(pages: Sequence[Sequence[tuple[float, str]]]) -> list[set[int]]:
    """Returns, for each page, the places in its list of lines that are running heads, feet or page numbers.

    Each page lists its outermost lines as (y in points, text). A running line stands at the same height on several
    pages: with the same words but for numbers, on two pages where there are two or three, else on three; or with a
    number that grows with the pages. Words that this page, or the one before, has three times are those of a table's
    rows.
    """
    if len(pages) < 2:
        return [set() for _ in pages]
    needed = 2 if len(pages) < 4 else 3
    seen: Counter[tuple[int, str]] = Counter()
    grown: Counter[tuple[int, int]] = Counter()
    for index, page in enumerate(pages):
        seen.update({(slot, normal(text)) for y, text in page for slot in _slots(y)})
        grown.update({(slot, step) for y, text in page for slot in _slots(y) for step in _steps(index, text)})
    often = max(3, 0.5 * len(pages))
    alike = [Counter(normal(text) for _, text in page) for page in pages]
    rows = [{words for words, times in page.items() if times > 2} for page in alike]

    def is_running(index: int, y: float, text: str) -> bool:
        words = normal(text)
        if words in rows[index] or (index and words in rows[index - 1] and alike[index][words] > 1):
            return False
        if any(seen[slot, normal(text)] >= needed for slot in _slots(y)):
            return True
        return any(grown[slot, step] >= often for slot in _slots(y) for step in _steps(index, text))

    return [{n for n, (y, text) in enumerate(page) if is_running(i, y, text)} for i, page in enumerate(pages)]


def _steps(index: int, text: str) -> set[int]:
    """Returns how far the first and the last number of a line are from the place of its page."""
    found = re.findall(r"\d{1,5}", text)
    return {int(number) - index for number in (found[:1] + found[-1:])}


def _slots(y: float) -> tuple[int, int]:
    """Returns two numbers for a height, of which heights less than 2 points apart share one."""
    return (2 * round(y / 4), 2 * round(y / 4 - 0.5) + 1)
