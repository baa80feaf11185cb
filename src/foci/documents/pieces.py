"""The pieces of a document, and errors about documents that cannot be read."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

PARAGRAPH = "\n\n"
UNPACKED = 2**30
"""Bytes that one archive may unpack to, at most: 1 GiB."""


@dataclass(frozen=True)
class Piece:
    """A paragraph, heading, list item or table. `place` says where it begins: "page 3", or the headings above it.

    `before` stands between the piece before and this one: an empty line, or a space or nothing where a paragraph goes
    on (on the next page). `apart` says that a document of its own begins here, such as the next part of a long table.
    """

    text: str
    place: str = ""
    before: str = PARAGRAPH
    apart: bool = False


@dataclass(frozen=True)
class Lost:
    """A part of a document that cannot be read, such as a scanned page: where it stands, and the reason with the cure.

    All other parts are read.
    """

    place: str
    reason: str


class Unreadable(ValueError):
    """Raised for a file that is no whole document of its kind; the words say what it is, and the cure."""


def check_archive(path: Path, kind: str, needed: str, limit: int = UNPACKED) -> None:
    """Raises Unreadable where a file is no archive that holds the file `needed`, or unpacks to more than `limit` bytes.

    `kind` names the format for people, such as "a Word document (.docx)".
    """
    with path.open("rb") as handle:
        head = handle.read(8)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable(f"an old Office document or an encrypted one, not {kind}; open it and save it as {kind}")
    try:
        with zipfile.ZipFile(path) as archive:
            names, size = set(archive.namelist()), sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        whole = "cut or damaged" if head.startswith(b"PK") else "another kind of file"
        raise Unreadable(f"not {kind}, but {whole} ({error}); get it again, or save it as {kind}") from error
    if needed not in names:
        raise Unreadable(f"not {kind}: it holds no {needed}; give it the ending of what it is")
    if size > limit:
        raise Unreadable(f"it unpacks to {size:,} bytes, more than {limit:,}; split it, or leave it out")
