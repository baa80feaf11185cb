"""JSON lines: .jsonl, one JSON object with a text per line, UTF-8."""

import codecs
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from foci.corpus.documents import EXCERPT, BadLine, Document, Format, Sample, excerpt
from foci.corpus.records import document_of
from foci.system.texts import HEAD, NotText, decoded, kind_of

LONGEST = 64 * 2**20
"""Bytes of a line at which reading ends: 64 MiB."""


class JsonLines(Format):
    """One document per line; `text_field` is the key of its text."""

    endings = (".jsonl",)

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields one document or one bad line per line; blank lines are nothing."""
        yield from read_lines(source, text_field)


def read_lines(source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
    """Yields the documents of a file of JSON lines, and in its place a bad line for whatever cannot be read."""
    with Path(source).open("rb") as handle:
        head = handle.read(HEAD)
        if kind := kind_of(head):
            yield BadLine(source, 1, "; ".join(kind))
            return
        handle.seek(0)
        for number, raw in enumerate(iter(partial(handle.readline, LONGEST), b""), start=1):
            if len(raw) == LONGEST:
                yield BadLine(source, number, f"a line of {LONGEST:,} bytes or more; the file is read up to it")
                return
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if line.strip():
                yield _of_line(line.rstrip(b"\r\n"), source, number, text_field)


def _of_line(raw: bytes, file: str, line: int, text_field: str) -> Document | Sample | BadLine:
    seen = excerpt(raw[: 4 * EXCERPT].decode("utf-8", "replace"))
    try:
        record = json.loads(decoded(raw))
    except NotText as error:
        return BadLine(file, line, str(error), seen)
    except (ValueError, RecursionError) as error:
        return BadLine(file, line, f"not JSON ({error})", seen)
    if not isinstance(record, dict):
        return BadLine(file, line, f"not a JSON object but {type(record).__name__}", seen)
    return document_of(record, file, line, text_field, seen)
