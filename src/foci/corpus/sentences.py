"""Finds sentences in plain text and Markdown, and the names, numbers and dates in a sentence."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from foci.corpus.split import Span, sentence_ends

LONGEST = 60
"""Words of a sentence that is asked about, at most."""

WORD = re.compile("\\w[\\w'\u2019-]*")
_ITEM = re.compile(r"^[^\S\n]*(?:[-*+\u2022]|\d{1,3}[.)]|#{1,6}|[|>]|={1,6})[^\S\n]", re.MULTILINE)
"""The beginning of a line that begins a sentence, whatever stands before it: an item, a heading, a line of a table."""
_HEADING = re.compile(r"^[^\S\n]*(?:#{1,6}[^\S\n]|=+[^\S\n][^\n]*=[^\S\n]*$)[^\n]*", re.MULTILINE)


def sentences(text: str) -> list[Span]:
    r"""Returns the sentences of a text, which together are all of it. Items of a list and headings stand alone.

    >>> text = "# Food\nWe eat at one. The cook is Ada.\n- Soup\n- Bread"
    >>> [text[a:b].strip() for a, b in sentences(text)]
    ['# Food', 'We eat at one.', 'The cook is Ada.', '- Soup', '- Bread']
    """
    starts = {found.start() for found in _ITEM.finditer(text)}
    after_headings = {found.end() for found in _HEADING.finditer(text)}
    bounds = sorted({0, *sentence_ends(text), *starts, *after_headings, len(text)})
    begins = [begin for begin, end in pairwise(bounds) if begin == 0 or text[begin:end].strip()]
    return list(pairwise([*begins, len(text)]))


def one_line(text: str) -> str:
    """Returns a text with a space in place of every run of white space, and none at its edges."""
    return " ".join(text.split())


def is_prose(sentence: str) -> bool:
    """Returns whether a sentence can be asked about: not code, a table or a list without an end.

    >>> is_prose("She was born on 10 December 1815 in London."), is_prose("| `C` | `C++` |"), is_prose("word " * 99)
    (True, False, False)
    """
    plain = sum(letter.isalnum() or letter.isspace() for letter in sentence)
    return plain >= 0.85 * len(sentence) and len(sentence.split()) <= LONGEST


def names_of(sentence: str, known: frozenset[str]) -> list[Span]:
    """Returns the names, numbers and dates of a sentence: runs of words with a capital or a digit in front.

    A first word is a name where it is one elsewhere (`known`), or where a name goes on after it.

    >>> text = "Late in May Ada Bell left Lake 12."
    >>> [text[a:b] for a, b in names_of(text, frozenset())]
    ['May Ada Bell', 'Lake 12']
    """
    words = [(found.start(), found.end()) for found in WORD.finditer(sentence)]
    found: list[Span] = []
    for number, (start, end) in enumerate(words):
        if not (sentence[start].isupper() or sentence[start].isdigit()):
            continue
        if found and _one_name(sentence, (found[-1][0], found[-1][1]), (start, end)):
            found[-1] = (found[-1][0], end)
        elif number or sentence[start].isdigit() or sentence[start:end] in known or _goes_on(sentence, words):
            found.append((start, end))
    return found


def _goes_on(sentence: str, words: Sequence[Span]) -> bool:
    return len(words) > 1 and _one_name(sentence, words[0], words[1])


def known_names(texts: Iterable[str]) -> frozenset[str]:
    """Returns the words that stand with a capital inside a sentence of some text, and nowhere with a small letter."""
    inside, small = set[str](), set[str]()
    for text in texts:
        for begin, end in sentences(text):
            for number, found in enumerate(WORD.finditer(text[begin:end])):
                word = found.group()
                if word[0].islower():
                    small.add(word)
                elif number and word[0].isupper():
                    inside.add(word)
    return frozenset(word for word in inside if word.lower() not in small)


def spans_of(sentence: str, heavy: Sequence[Span]) -> list[Span]:
    """Returns the heavy parts of a sentence as runs of whole words; names and numbers are taken whole.

    >>> text = "She went to North Harbor Academy in May."
    >>> [text[a:b] for a, b in spans_of(text, [(18, 24), (36, 39)])]
    ['North Harbor Academy', 'May']
    """
    words = [(found.start(), found.end()) for found in WORD.finditer(sentence)]
    found: list[Span] = []
    for number, (start, end) in enumerate(words):
        if not any(a < end and b > start for a, b in heavy):
            continue
        first = last = number
        while first and _one_name(sentence, words[first - 1], words[first]):
            first -= 1
        while last + 1 < len(words) and _one_name(sentence, words[last], words[last + 1]):
            last += 1
        span = (words[first][0], words[last][1])
        if found and not sentence[found[-1][1] : span[0]].strip():
            found[-1] = (found[-1][0], max(found[-1][1], span[1]))
        else:
            found.append(span)
    return found


def _one_name(sentence: str, one: Span, next_one: Span) -> bool:
    """Whether two words are parts of one name or date: both begin with a capital or a digit, a space between them."""
    initials = sentence[one[0]] + sentence[next_one[0]]
    between = sentence[one[1] : next_one[0]]
    return between == " " and all(letter.isupper() or letter.isdigit() for letter in initials)
