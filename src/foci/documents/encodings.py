"""Bytes of web pages and chapters of e-books to text, by what they say of their letters."""

import codecs
import re

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"<\0?\0": "utf-16-le",
    b"\0<\0?": "utf-16-be",
}
"""First bytes that say how a page is written. The longer of two comes first."""
_DECLARED = re.compile(
    rb"""\A\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)|<meta[^>]+charset=["']?\s*([\w-]+)""", re.IGNORECASE
)
_ESCAPE = b"\x1b$"
"""Begins Japanese letters in ISO-2022-JP."""
_PASSED = ("ascii", "utf-8", "iso8859-1", "unicode_escape", "raw_unicode_escape", "punycode", "idna")
"""Codecs that a page which is no UTF-8 is not written in, although it says so. Browsers read Windows-1252 then."""


def decoded(raw: bytes) -> str:
    """Returns the text of a page: by its byte-order mark, else UTF-8, else as the page says, else Windows-1252.

    A page says it in its XML declaration, or in an element <meta>. Bytes that stand for no letter become U+FFFD. A page
    in ISO-2022-JP has bytes of ASCII alone, which would pass for UTF-8.
    """
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            return raw.decode(name, "replace")
    if _ESCAPE in raw and (_declared(raw) or "").startswith("iso2022"):
        return raw.decode(_declared(raw) or "", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode(_declared(raw) or "cp1252", "replace")


def _declared(raw: bytes) -> str | None:
    """Returns the first codec that a page names and can be written in; None where there is none."""
    for named in _DECLARED.finditer(raw[:4096]):
        try:
            name = codecs.lookup((named.group(1) or named.group(2)).decode("ascii")).name
            reads = named.group().decode(name) == named.group().decode("ascii")  # no base64, UTF-16 or EBCDIC
        except (LookupError, UnicodeError):
            continue
        if reads and name not in _PASSED:
            return name
    return None
