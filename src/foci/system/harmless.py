"""Writes out characters of a text that would steer a terminal or show a text in another order than it is written.

Everything that foci shows to people passes here: the terminal (`foci.system.terminal`), errors, reports and tables.
"""

_DIRECTION = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction in which others are shown."""
_STEERING = {
    number: ascii(chr(number))[1:-1]
    for number in (*range(9), *range(11, 32), *range(127, 160), *range(0xD800, 0xE000), *map(ord, _DIRECTION))
}
"""Controls but tab and line feed, direction characters, halves of surrogate pairs."""


def visible(text: str) -> str:
    r"""Returns a text whose steering characters are written out; line feeds and tabs stay.

    >>> print(visible("a\x1b[2Jb\u202ec"), visible("Zoë, עברית"))
    a\x1b[2Jb\u202ec Zoë, עברית
    """
    return text.translate(_STEERING)


def one_line(name: str) -> str:
    r"""Returns a name on one line: line breaks and all other characters that cannot be printed are written out.

    >>> print(one_line("a\nb.txt"), one_line("Zoë.txt"))
    a\nb.txt Zoë.txt
    """
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
