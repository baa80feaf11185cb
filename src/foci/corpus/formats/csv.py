"""Tables as text: .csv and .tsv, UTF-8. A column of texts gives one document a line, any other table is Markdown."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from foci.corpus.documents import LARGEST, BadLine, Document, Format, Sample
from foci.corpus.records import document_of
from foci.documents.tables import between, parts
from foci.system.texts import NotText, decoded

_MARKS = ",;\t|"


class Csv(Format):
    """One document per line where a column is named `text_field`; else parts of the table, each under its head."""

    endings = (".csv", ".tsv")
    whole = True

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields one document per line or per part of the table, or a bad line that says why there is none."""
        try:
            text = decoded(Path(source).read_bytes())
        except NotText as error:
            yield BadLine(source, 1, str(error))
            return
        csv.field_size_limit(max(csv.field_size_limit(), LARGEST))
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=_mark(text, source))
        try:
            yield from _documents(((lines.line_num, cells) for cells in lines), source, text_field)
        except csv.Error as error:
            yield BadLine(source, lines.line_num, f"not a table ({error}); open it and save it again")


def _documents(
    lines: Iterator[tuple[int, list[str]]], source: str, text_field: str
) -> Iterator[Document | Sample | BadLine]:
    """Yields the documents of numbered lines. A line's number is that of its last line break, so it is counted back."""
    first = next(((number, cells) for number, cells in lines if any(cell.strip() for cell in cells)), None)
    if first is None:
        return
    head = [cell.strip() for cell in first[1]]
    if text_field in head:
        at = head.index(text_field)
        for number, cells in lines:
            begun = number - sum(cell.count("\n") for cell in cells)
            if any(cells):
                yield document_of({text_field: cells[at]} if at < len(cells) else {}, source, begun, text_field)
        return
    for start, end, table in parts(_with(first, lines)):
        yield Document(table, source, start, places=((0, between("line", start, end)),))


def _with(
    first: tuple[int, Sequence[str]], lines: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, Sequence[str]]]:
    yield first
    yield from lines


def _mark(text: str, source: str) -> str:
    """Returns the sign between cells: a tab in .tsv, else the one that most lines have equally often."""
    if Path(source).suffix.lower() == ".tsv":
        return "\t"
    lines = [line for line in text[:20_000].splitlines() if line.strip()][:20]
    return max(_MARKS, key=lambda mark: _agreement([line.count(mark) for line in lines]))


def _agreement(counts: Sequence[int]) -> tuple[int, int]:
    """Returns how many lines have as many signs as the first line (0 where it has none), and that number."""
    first = counts[0] if counts else 0
    return (counts.count(first), first) if first else (0, 0)
