"""Finds replies that go round in a loop, as those of small models do: they are ended, for nothing more comes."""

import re

TIMES, SHORTEST, LONGEST = 3, 20, 240
"""How often a part comes in a row at the end of a loop, and the characters of such a part."""


def loops(text: str) -> bool:
    r"""Returns whether a text ends with the same words three times in a row; numbers and white space do not count.

    >>> loops("Who runs it?\n" + "".join(f"{n}. What is the text about?\n" for n in range(3)))
    True
    >>> loops("1931, 1932, 1933, 1934" + " " * 99 + "=" * 99)
    False
    """
    said = re.sub(r"[\d\s]+", " ", text[-2 * TIMES * LONGEST :])
    for size in range(SHORTEST, min(LONGEST, len(said) // TIMES) + 1):
        part = said[-size:]
        if said.endswith(part * TIMES) and sum(map(str.isalpha, part)) * 2 > size:
            return True
    return False
