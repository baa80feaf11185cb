"""Reads UTF-8 text, and says of any other file what it is and how to make text of it."""

from pathlib import Path

SIGNATURES = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "fetch the file with: git lfs pull"),
    b"\xff\xfe\0\0": ("UTF-32, not UTF-8", "save it as UTF-8, or: iconv -f UTF-32 -t UTF-8"),
    b"\0\0\xfe\xff": ("UTF-32, not UTF-8", "save it as UTF-8, or: iconv -f UTF-32 -t UTF-8"),
    b"\xff\xfe": ("UTF-16, not UTF-8", "save it as UTF-8, or: iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16, not UTF-8", "save it as UTF-8, or: iconv -f UTF-16 -t UTF-8"),
    b"%PDF-": ("a PDF document, not text", "convert it to text first"),
    b"{\\rtf": ("an RTF document, not text", "save it as plain text"),
    b"PK\x03\x04": ("a ZIP archive or an Office document, not text", "unpack it, or save it as plain text"),
    b"\xd0\xcf\x11\xe0": ("an old Office document, not text", "save it as plain text"),
    b"\x1f\x8b": ("compressed (gzip), not text", "unpack it: gunzip"),
    b"BZh": ("compressed (bzip2), not text", "unpack it: bunzip2"),
    b"\xfd7zXZ": ("compressed (xz), not text", "unpack it: unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd), not text", "unpack it: unzstd"),
    b"7z\xbc\xaf": ("a 7-Zip archive, not text", "unpack it"),
    b"PAR1": ("a parquet table, not text", "give it the ending .parquet"),
    b"SQLite format 3": ("an SQLite database, not text", "export its texts first"),
    b"\x89PNG": ("a PNG picture, not text", "leave it out"),
    b"\xff\xd8\xff": ("a JPEG picture, not text", "leave it out"),
    b"GIF8": ("a GIF picture, not text", "leave it out"),
    b"\x7fELF": ("a program, not text", "leave it out"),
}
"""First bytes of files that are no UTF-8 text: what they are, and the cure. The longer of two comes first."""

POINTER = b"version https://git-lfs"
"""The first bytes of a Git LFS pointer."""
HEAD = 4096
"""Bytes at the beginning of a file in which its kind is looked for."""
_CONTROLS = dict.fromkeys([*range(7), *range(14, 26), *range(28, 32), 127])
_FEW = 4


class NotText(ValueError):
    """Raised for bytes that are no text; `at` is the place of the first wrong byte, from 0."""

    def __init__(self, reason: str, at: int = 0) -> None:
        super().__init__(reason)
        self.at = at


def decoded(raw: bytes) -> str:
    r"""Returns the text of a file's bytes: UTF-8, with or without a byte-order mark.

    Raises NotText, with the reason and the cure, for all other bytes: another encoding, another kind of file, zero
    bytes, and text with four control characters or more, and more than one in 100.

    >>> decoded(b"caf\xc3\xa9")
    'café'
    """
    try:
        text = raw.decode("utf-8-sig")
        reason, at = why_no_text(text) or ("" if _is_plain(raw) else "not text"), -1
    except UnicodeDecodeError as error:
        reason, at = f"not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start})", error.start
    if not reason:
        return text
    if kind := kind_of(raw):
        raise NotText("; ".join(kind))
    if _is_utf16(raw):
        raise NotText("UTF-16 without a byte-order mark, not UTF-8; save it as UTF-8, or: iconv -f UTF-16LE -t UTF-8")
    windows = "save it as UTF-8 (an old Windows file: iconv -f WINDOWS-1252 -t UTF-8)"
    place = at if at >= 0 else _first_control(raw)
    raise NotText(f"{reason}; {windows if 'UTF-8' in reason else 'leave it out, or repair it'}", place)


def read_text(path: str | Path, noun: str) -> str:
    """Returns the text of a file. Raises ValueError, which begins with `noun` and the path, for what is no text."""
    try:
        return decoded(Path(path).read_bytes())
    except NotText as error:
        raise ValueError(f"{noun} {path} is {error}") from None
    except OSError as error:
        raise ValueError(f"{noun} {path} cannot be read ({error.strerror or error}); check the path") from None


def kind_of(raw: bytes) -> tuple[str, str] | None:
    """Returns what a file is by its first bytes, and the cure; None for what may be text."""
    return next((said for sign, said in SIGNATURES.items() if raw.startswith(sign)), None)


def why_no_text(text: str) -> str | None:
    r"""Returns the reason why a string is no text; None where it is one.

    >>> why_no_text("a\0b"), why_no_text("a\tb\n")
    ('not text (a zero byte at character 1)', None)
    """
    if text.isprintable():
        return None
    if (at := text.find("\0")) >= 0:
        return f"not text (a zero byte at character {at})"
    count = len(text) - len(text.translate(_CONTROLS))
    return f"not text ({count} control characters)" if count >= _FEW and count * 100 > len(text) else None


def why_no_string(text: str) -> str | None:
    r"""Returns the reason why a string of a JSON file is no text; None where it is one.

    A control character that is written as such (`\u0001`) is meant; half a surrogate pair, or the zero bytes of UTF-16
    that was read as text, are not.

    >>> why_no_string("a\1b"), why_no_string("a\0b\0")
    (None, 'not text (2 of 4 characters are zero bytes, as of UTF-16 that was read as UTF-8)')
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"not UTF-8 (half a surrogate pair at character {error.start})"
    zeros = text.count("\0")
    if zeros * 4 <= len(text):
        return None
    return f"not text ({zeros} of {len(text)} characters are zero bytes, as of UTF-16 that was read as UTF-8)"


def _is_plain(raw: bytes) -> bool:
    """Returns whether a file that can be decoded is meant as text: no Git LFS pointer, PDF or RTF document."""
    return not (raw.startswith((b"%PDF-", b"{\\rtf")) or (raw.startswith(POINTER) and len(raw) < 1024))


def _is_utf16(raw: bytes) -> bool:
    """Returns whether bytes read as UTF-16, without a mark, are nearly all letters, digits, spaces and punctuation."""
    head = raw[: HEAD // 2 * 2]
    head = head[: len(head) // 2 * 2]
    for order in ("utf-16-le", "utf-16-be"):
        text = head.decode(order, "replace")
        plain = sum((letter.isprintable() and letter != "\ufffd") or letter.isspace() for letter in text)
        narrow = sum(ord(letter) < 0x590 for letter in text)  # Latin, Greek, Cyrillic; other scripts are not guessed
        if text and min(plain, narrow) >= 0.9 * len(text):
            return True
    return False


def _first_control(raw: bytes) -> int:
    return next((n for n, byte in enumerate(raw) if byte in _CONTROLS), 0)
