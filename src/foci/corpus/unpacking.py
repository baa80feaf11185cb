"""Reads a file that is packed in another one: from a temporary file, under the name that it has in the archive."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from foci.corpus.documents import BadLine, Document, Sample, read_source
from foci.system.scratch import in_temporary_folder

_STEP = 2**20


class TooMuch(ValueError):
    """Raised where a packed file unpacks to more bytes than it may."""


def unpacked(stream: Any, ending: str, name: str, text_field: str, limit: int) -> Iterator[Document | Sample | BadLine]:
    """Yields the documents and bad lines of a stream of bytes, as of a file of this ending, under the name `name`.

    Raises TooMuch for more than `limit` bytes, and what the stream raises where it is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="foci-") as folder:
        path = Path(folder, f"file{ending}")
        with in_temporary_folder():
            copy(stream, path, limit)
        try:
            for found in read_source(str(path), text_field):
                yield replace(found, file=name)
        except (ValueError, ImportError) as error:
            raise type(error)(str(error).replace(str(path), name)) from error


def copy(stream: Any, path: Path, limit: int) -> int:
    """Writes a stream to a file and returns its number of bytes. Raises TooMuch for more than `limit`."""
    count = 0
    with path.open("wb") as file:
        while part := stream.read(_STEP):
            count += len(part)
            if count > limit:
                raise TooMuch(f"it unpacks to more than {limit:,} bytes; split it, or leave it out")
            file.write(part)
    return count
