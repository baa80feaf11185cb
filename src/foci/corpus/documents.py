"""Finds the files of a corpus and reads documents from them; `foci.corpus.formats` holds one module per file format.

A piece that cannot be read becomes a `BadLine` with its file, line and reason, and reading goes on.
"""

import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from foci.corpus.split import Span
from foci.system.checkpoint import DiskFull
from foci.system.files import existing
from foci.system.harmless import one_line
from foci.system.registry import members

FORMATS = "foci.corpus.formats"
"""The folder that holds the file formats."""
EXCERPT = 80
"""The number of characters of a bad line that are shown."""
LARGEST = 512 * 2**20
"""Bytes of a file that is read whole, at most: 512 MiB."""


@dataclass(frozen=True)
class BadLine:
    """A piece of a corpus that cannot be used; `line` counts lines of a text, or records of a table, from 1.

    `place` says where it stands in a document that has no lines, such as "page 3".
    """

    file: str
    line: int
    reason: str
    excerpt: str = ""
    place: str = ""

    def __str__(self) -> str:
        return f"{where(self.file, self.line, self.place)}: {self.reason}"


@dataclass(frozen=True)
class LeftOut(BadLine):
    """A part of a document, such as a scanned page, that cannot be read; the document's other parts are."""


@dataclass(frozen=True)
class Empty(BadLine):
    """A file or record without text: it is named, but it is no damage."""


@dataclass(frozen=True)
class Document:
    """A text without white space at its edges, the line on which it begins (from 1), and the characters it marks.

    `spans` maps a name ("answer", "name") to disjoint, ascending characters [start, end) of `text`; each becomes a
    column of the rows, 1 on the tokens of these characters. `whole_file` says that line numbers go on inside of the
    text, so that each piece of it is named by its own line. `places` are characters of the text where a page or a
    section begins, ascending, each with its name ("page 3"); pieces are named by the one that they begin in.
    """

    text: str
    file: str
    line: int
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    whole_file: bool = False
    places: tuple[tuple[int, str], ...] = ()

    def place(self, at: int) -> str:
        """Returns the page or section in which character `at` stands; "" where none is known."""
        index = bisect_right(self.places, at, key=lambda place: place[0]) - 1
        return self.places[index][1] if index >= 0 else ""


def where(file: str, line: int, place: str = "") -> str:
    """Returns the name of a place in a file, for people: its page or section where it has one, else its line.

    >>> where("a.txt", 7), where("a.pdf", 1, "page 3")
    ('a.txt:7', 'a.pdf, page 3')
    """
    return one_line(f"{file}, {place}" if place else f"{file}:{line}")


@dataclass(frozen=True)
class Sample(ABC):
    """A record that is no plain text, such as a conversation; `foci.corpus.conversations` has the kinds."""

    file: str
    line: int

    @abstractmethod
    def words(self) -> str:
        """Returns its words, for people and for counting."""


class Format(ABC):
    """A file format: how documents are read from one kind of file.

    `endings` of file names, with the dot and in lower case, say which files it reads; `prefix` says it for names that
    are no files ("hub:"). `whole` says that a file is held in memory whole: larger ones than `LARGEST` are refused.
    """

    endings: ClassVar[tuple[str, ...]] = ()
    prefix: ClassVar[str] = ""
    whole: ClassVar[bool] = False

    @abstractmethod
    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields the documents of a source in order, and in its place a `BadLine` for whatever cannot be read.

        `text_field` is the key of a record's text; formats without records ignore it. Raises ValueError where the run
        file must change before anything can be read, ImportError with the cure where a package is missing.
        """


def excerpt(text: str) -> str:
    """Returns the first characters of a text, safe to write as UTF-8."""
    return text[:EXCERPT].encode("utf-8", "replace").decode("utf-8")


def find_sources(paths: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """Returns the files and `hub:` names to read, in order (a folder's files sorted), and files of unknown ending.

    Hidden files and folders, and the lock files of open documents (`~$letter.docx`), are left out; a file that is
    named twice is read once. Links to folders are followed, each real folder once. Raises FileNotFoundError with the
    nearest name that exists, ValueError for a file of unknown ending or when nothing can be read.
    """
    endings, prefixes = _endings(), _prefixes()
    known = ", ".join(endings)
    found: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for given in paths:
        if str(given).startswith(tuple(prefixes)):
            found.setdefault(str(given), str(given))
            continue
        path = existing(given, "corpus", "check corpus.path")
        if path.is_file() and ending_of(path) is None:
            raise ValueError(f"corpus file {path}: expected one of {known}, got {path.suffix!r}; convert it")
        for file in files_below(path) if path.is_dir() else [path]:
            which = skipped if ending_of(file) is None else found
            which.setdefault(os.path.realpath(file), str(file))
    if not found:
        seen = f"only {', '.join([*skipped.values()][:3])}" if skipped else "no file at all"
        named = ", ".join(map(str, paths)) or "(no path)"
        raise ValueError(f"corpus {named}: expected at least one file of {known}, got {seen}")
    return list(found.values()), list(skipped.values())


def _formats() -> list[Format]:
    return list(members(FORMATS, Format).values())  # type: ignore[type-abstract]


def _endings() -> dict[str, Format]:
    """Returns every format by each ending that it reads."""
    found: dict[str, Format] = {}
    for made in _formats():
        for ending in made.endings:
            if ending in found:
                names = " and ".join(type(one).__name__ for one in (found[ending], made))
                raise TypeError(f"two formats read files that end in {ending}: {names}; keep one of them")
            found[ending] = made
    return dict(sorted(found.items()))


def _prefixes() -> dict[str, Format]:
    """Returns the formats that have a prefix, by it."""
    return {made.prefix: made for made in _formats() if made.prefix}


def files_below(folder: Path) -> list[Path]:
    """Returns the files below a folder, sorted by their paths. Hidden ones are left out.

    Links to folders are followed, each real folder once, so that loops end; one that stands in the tree itself is read
    there. Raises ValueError for a folder that cannot be read.
    """
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        top = waiting.pop(0)
        for root, folders, names in os.walk(top, onerror=_unreadable):
            where = Path(root).stat()
            if (where.st_dev, where.st_ino) in seen:
                folders.clear()
                continue
            seen.add((where.st_dev, where.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            waiting += [Path(root, name) for name in folders if Path(root, name).is_symlink()]
            files += [Path(root, name) for name in names if not name.startswith((".", "~$"))]
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def ending_of(file: Path) -> str | None:
    """Returns the longest ending of a file's name that a format reads, in lower case; None where none does."""
    parts = file.name.lower().split(".")
    endings = _endings()
    tails = ("." + ".".join(parts[n:]) for n in range(1, len(parts)))
    return next((tail for tail in tails if tail in endings), None)


def readable(file: Path) -> bool:
    """Returns whether there is a format for files of this ending."""
    return ending_of(file) is not None


def _unreadable(error: OSError) -> None:
    raise ValueError(
        f"corpus folder {error.filename} cannot be read ({error.strerror}); check its permissions"
    ) from None


def read_source(source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
    """Yields the documents and bad lines of one file or `hub:NAME...`, in order; `Empty` where there is none.

    Raises ValueError, which names the source, for whatever a reader cannot deal with.
    """
    named = next((made for prefix, made in _prefixes().items() if source.startswith(prefix)), None)
    reader = named or _endings()[ending_of(Path(source)) or ""]
    if named is None and (reason := _unusable(Path(source), reader)):
        yield BadLine(source, 1, reason)
        return
    if named is None and Path(source).stat().st_size == 0:
        yield Empty(source, 1, "no text in it")
        return
    nothing = True
    try:
        for found in reader.read(source, text_field):
            nothing = False
            yield found
    except DiskFull:  # of the temporary folder
        raise
    except OSError as error:
        nothing = False
        yield BadLine(source, 1, f"cannot be read ({error.strerror or error})")
    except Exception as error:
        if isinstance(error, ImportError) or source in str(error):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"corpus {source} cannot be read ({reason}); leave it out, or repair it") from error
    if nothing:
        yield Empty(source, 1, "no text in it")


def _unusable(path: Path, reader: Format) -> str:
    """Returns the reason why a path is no file that can be read; "" where it is one."""
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which is not there"
    if not path.exists():
        return "it is no longer there"
    if not path.is_file():
        return "not a file, but a device, pipe or socket"
    size = path.stat().st_size
    if reader.whole and size > LARGEST:
        return f"{size:,} bytes, more than the {LARGEST:,} of a file that is read whole; split it, or leave it out"
    return ""
