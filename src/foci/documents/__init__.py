"""Documents that people have (PDF, Word, HTML, slides, sheets, e-books), as a stream of pieces of text.

One module per format, with one function `pieces(path)`. A piece is a paragraph, a heading, a list item or a table, and
knows where it stands. The libraries that read these formats are an extra of the package: `pip install
'foci[documents]'`. A module of this folder is imported when the first file of its kind is read.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path

from foci.documents.pieces import Lost, Piece, Unreadable

__all__ = ["READERS", "Lost", "Piece", "Unreadable", "pieces_of"]

READERS = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".epub": "epub",
}
"""The module of this folder that reads the files of each ending."""


def pieces_of(path: Path, name: str) -> Iterator[Piece | Lost]:
    """Yields the pieces of a document in reading order, and in its place a `Lost` for what cannot be read.

    The ending of the path says the format; `name` is what messages call the file. Raises Unreadable for a file that is
    no whole document of its kind, ImportError, which names the file and the cure, where a library of the extra is
    missing.
    """
    ending = path.suffix.lower()
    try:
        reader = importlib.import_module(f"foci.documents.{READERS[ending]}")
    except ImportError as error:
        raise ImportError(
            f"corpus file {name}: files that end in {ending} need the package {error.name}; "
            "pip install 'foci[documents]', or leave the file out"
        ) from error
    try:
        yield from reader.pieces(path)
    except (Unreadable, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a library's own error about a file that it cannot deal with
        said = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise Unreadable(f"a damaged file ({said}); open it and save it again, or leave it out") from error
