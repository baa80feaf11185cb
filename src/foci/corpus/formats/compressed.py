"""Compressed files: .txt.gz, .jsonl.zst and their like, read as what they hold."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from foci.corpus.documents import BadLine, Document, Format, Sample
from foci.corpus.unpacking import TooMuch, unpacked
from foci.documents.pieces import UNPACKED

INSIDE = (".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".html", ".htm")


class Compressed(Format):
    """The documents of the file inside; it is unpacked into a temporary file first."""

    endings = tuple(f"{inside}{packed}" for inside in INSIDE for packed in (".gz", ".zst"))

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields the documents and bad lines of the file inside; one bad line for a file that is cut or damaged."""
        path = Path(source)
        try:
            with _opened(path) as stream:
                yield from unpacked(stream, path.with_suffix("").suffix, source, text_field, UNPACKED)
        except TooMuch as error:
            yield BadLine(source, 1, str(error))
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.filename:
                raise
            yield BadLine(source, 1, f"a compressed file that is cut or damaged ({error}); get it again")


def _opened(path: Path) -> IO[bytes] | Any:
    """Returns a stream of the unpacked bytes; of a .zst file with several frames, all of them."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    return pa.input_stream(str(path), compression="zstd")
