"""Whether a space is due between a prompt and its answer."""

import re
import unicodedata

from foci.probes.scoring import PHRASED, UNSPACED

_NO_SPACES = re.compile(rf"[{UNSPACED}{PHRASED}]")
_NEVER = re.compile(rf"[{UNSPACED}]")
_ELIDED = re.compile(
    r"(?:^|[\s(])(?:\w|qu|jusqu|lorsqu|puisqu|dell|all|dall|nell|sull|un|quell|quest)['\u2019]\Z", re.I
)
"""The end of a French or Italian word that is written together with the next one: l', dell'."""
_CLITIC = re.compile(r"(?:['\u2019](?:s|t|re|ll|ve|d|m)|n['\u2019]t)\b(?!-\w)", re.I)
"""The beginning of an English ending: 's, n't. ('s-Hertogenbosch is a name.)"""
_CLOSES = ",;:!?%"
_QUOTES = "\"'`"
_NUMBER = re.compile(r"[-+\u2212]?[.,]?\d")


def space_between(prompt: str, answer: str) -> str:
    """Returns the space between a prompt and its answer, "" where none is due.

    None is due after white space, an opening bracket or quote, a hyphen or slash at a word; between a currency sign, a
    sign or a # and a number; before closing punctuation; in scripts that are written without spaces (Chinese, Japanese,
    Thai ...). Neither text is empty.

    >>> [space_between(*pair) for pair in (("in", "Bern"), ("costs $", "5"), ("\u9996\u90fd\u662f", "\u5317\u4eac"))]
    [' ', '', '']
    """
    last, first = prompt[-1], answer[0]
    together = (
        last.isspace()
        or first.isspace()
        or _opens(prompt)
        or _closes(answer)
        or _goes_with_number(prompt, answer)
        or _is_unspaced(prompt, answer)
        or (last in "-\u2010\u2011\u2013\u2014/" and _is_word(prompt[-2:-1]))
        or bool(_ELIDED.search(prompt))
    )
    return "" if together else " "


def _opens(prompt: str) -> bool:
    """Returns whether a prompt ends in an opening bracket, or in an opening quote: no word stands before it."""
    last, before = prompt[-1], prompt[-2:-1]
    kind = unicodedata.category(last)
    if last in _QUOTES or kind in ("Pi", "Pf"):
        return not before or before.isspace() or _opens(prompt[:-1]) or bool(kind == "Pi" and _NEVER.match(before))
    return kind == "Ps"


def _closes(answer: str) -> bool:
    """Returns whether an answer begins with what closes: a bracket, a sentence's mark, an ending such as 's."""
    first, second = answer[0], answer[1:2]
    if first == ".":
        return not _is_word(second)  # .NET and .5 begin a word
    kind = unicodedata.category(first)
    return first in _CLOSES or kind in ("Pe", "Mn", "Mc") or bool(_CLITIC.match(answer))


def _goes_with_number(prompt: str, answer: str) -> bool:
    """Returns whether a prompt ends in a sign of the number that the answer begins with: $5, -5, #1."""
    last, before = prompt[-1], prompt[:-1]
    if not _NUMBER.match(answer):
        return False
    signed = (
        last in "-+~\u2212\u00b1\u2248" and (not before or before[-1].isspace()) and not before.rstrip()[-1:].isdigit()
    )
    return signed or last == "#" or unicodedata.category(last) == "Sc"


def _is_unspaced(prompt: str, answer: str) -> bool:
    """Returns whether the two meet in a script without spaces."""
    if _NEVER.match(prompt[-1]):
        return True
    if not _NO_SPACES.match(answer):
        return False
    letters = [char for char in prompt if char.isalpha()]
    return sum(bool(_NO_SPACES.match(char)) for char in letters) * 2 > len(letters)


def _is_word(char: str) -> bool:
    """Returns whether a character is a letter or a digit."""
    return char.isalnum()
