"""Archives: .zip, read as the files that it holds; an archive in an archive too, as Notion's export has it."""

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from foci.corpus.documents import BadLine, Document, Empty, Format, Sample, ending_of
from foci.corpus.unpacking import TooMuch, copy, unpacked
from foci.documents.pieces import UNPACKED
from foci.system.scratch import in_temporary_folder

DEPTH = 2
"""Archives that are read in one another, at most."""
_NAMED = 3


class Zip(Format):
    """The documents of the files inside, in the order of their names; each is named `ARCHIVE.zip/NAME`.

    Nothing is written by the names of the archive: each file is unpacked alone, into a temporary one.
    """

    endings = (".zip",)

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields the documents and bad lines of each file inside; `Empty` names those of unknown kind."""
        yield from _of_archive(Path(source), source, text_field, _Room(UNPACKED))


@dataclass
class _Room:
    """The bytes that an archive may still unpack to, with those in it, and how deep in others it lies (from 1)."""

    left: int
    depth: int = 1


def _of_archive(path: Path, name: str, text_field: str, room: _Room) -> Iterator[Document | Sample | BadLine]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        yield BadLine(name, 1, f"no ZIP archive, or one that is cut or damaged ({error}); get it again")
        return
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir() and not _hidden(entry.filename)]
        if (size := sum(entry.file_size for entry in entries)) > room.left:
            yield BadLine(name, 1, f"it unpacks to {size:,} bytes, more than {room.left:,}; split it, or leave it out")
            return
        room.left -= size
        unknown = [
            entry.filename for entry in entries if not _outside(entry) and ending_of(Path(entry.filename)) is None
        ]
        if unknown:
            more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
            yield Empty(name, 1, f"files of unknown kind in it: {', '.join(unknown[:_NAMED])}{more}")
        for entry in sorted(entries, key=lambda entry: entry.filename):
            if entry.filename not in unknown:
                yield from _of_entry(archive, entry, f"{name}/{entry.filename}", text_field, room)


def _of_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, text_field: str, room: _Room
) -> Iterator[Document | Sample | BadLine]:
    if reason := _refused(entry, room.depth):
        yield BadLine(name, 1, reason)
        return
    try:
        with archive.open(entry) as stream:
            if entry.filename.lower().endswith(".zip"):
                with tempfile.TemporaryDirectory(prefix="foci-") as folder:
                    inner = Path(folder, "inner.zip")
                    with in_temporary_folder():
                        copy(stream, inner, UNPACKED)
                    room.depth += 1
                    yield from _of_archive(inner, name, text_field, room)
                    room.depth -= 1
            else:
                yield from unpacked(stream, ending_of(Path(entry.filename)) or "", name, text_field, UNPACKED)
    except TooMuch as error:
        yield BadLine(name, 1, str(error))
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        yield BadLine(name, 1, f"damaged in its archive ({error}); get the archive again")


def _refused(entry: zipfile.ZipInfo, depth: int) -> str:
    """Returns the reason why a file of an archive is not read; "" where it is."""
    if _outside(entry):
        return "its path leads out of the archive; if you trust the archive, unpack it and name the folder"
    if entry.flag_bits & 1:
        return "locked by a password; unpack the archive and name the folder"
    if (entry.external_attr >> 16) & 0o170000 == 0o120000:
        return "a link, not a file; unpack the archive and name the folder"
    if entry.filename.lower().endswith(".zip") and depth >= DEPTH:
        return "an archive in an archive in an archive; unpack it"
    return ""


def _outside(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", path.parts[0]) is not None


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any((part.startswith((".", "~$")) and part != "..") or part == "__MACOSX" for part in parts)
