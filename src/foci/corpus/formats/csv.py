"""Tables as text: .csv and .tsv, UTF-8. A column of texts gives one document a line, any other table is Markdown."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foci.corpus.documents import LARGEST, BadLine, Document, Format, Sample, excerpt
from foci.corpus.records import document_of
from foci.documents.tables import between, parts
from foci.system.texts import NotText, decoded

_MARKS = ",;\t|"
_STATED = re.compile(r'"?sep=([^\w"\r\n])"?\r?\n')


class Csv(Format):
    """One document per line where a column is named `text_field`; else parts of the table, each under its head."""

    endings = (".csv", ".tsv")
    whole = True

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields one document per line or per part of the table, or a bad line that says why there is none."""
        try:
            text = decoded(Path(source).read_bytes()).rstrip("\r\n")
        except NotText as error:
            yield BadLine(source, 1, str(error))
            return
        csv.field_size_limit(max(csv.field_size_limit(), LARGEST))
        if (stated := _STATED.match(text)) is not None:  # Excel's own line, which is none of the table
            text = f"\n{text[stated.end() :]}"
        mark = stated.group(1) if stated else _mark(text, source)
        lines = _reader(text, mark)
        records = ((lines.line_num - sum(cell.count("\n") for cell in cells), cells) for cells in lines)
        try:
            if not _is_open(text, mark):
                yield from _documents(records, source, text_field, mark)
                return
            *whole, (number, _) = records
            yield from _documents(iter(whole), source, text_field, mark)
            yield BadLine(source, number, "a quote that is not closed, so all that follows is one cell; close it")
        except csv.Error as error:
            yield BadLine(source, lines.line_num, f"not a table ({error}); open it and save it again")


def _reader(text: str, mark: str) -> Any:
    r"""Returns the reader of a table. In tables with tabs quotes are letters, but where each one begins or ends a cell.

    >>> [list(_reader(text, chr(9))) for text in ('1\t"a"', '1\t"a" b')]
    [[['1', 'a']], [['1', '"a" b']]]
    """

    def of(**settings: Any) -> Any:
        return csv.reader(io.StringIO(text, newline=""), delimiter=mark, **settings)

    if mark == "\t" and '"' in text:
        try:
            for _ in of(strict=True):
                continue
        except csv.Error:
            return of(quoting=csv.QUOTE_NONE)
    return of()


def _is_open(text: str, mark: str) -> bool:
    """Returns whether the last quote is not closed: one more ends a cell then, and else begins a line."""
    if text.count('"') % 2 == 0:
        return False
    counts = [sum(1 for _ in _reader(one, mark)) for one in (text, f'{text}\n"')]
    return counts[0] == counts[1]


def _documents(
    lines: Iterator[tuple[int, list[str]]], source: str, text_field: str, mark: str
) -> Iterator[Document | Sample | BadLine]:
    """Yields the documents of numbered lines, whose cells `mark` parts."""
    first = next(((number, cells) for number, cells in lines if any(cell.strip() for cell in cells)), None)
    if first is None:
        return
    head = [cell.strip() for cell in first[1]]
    if text_field in head:
        at = head.index(text_field)
        for number, cells in lines:
            if any(cell.strip() for cell in cells[len(head) :]):
                if len(head) > 1:
                    told = (
                        f"{len(cells)} cells under a head of {len(head)}; put quotes around a text with {mark!r} in it"
                    )
                    yield BadLine(source, number, told, excerpt(mark.join(cells)))
                    continue
                cells = [mark.join(cells)]  # noqa: PLW2901 - a column of texts without quotes
            if any(cells):
                yield document_of({text_field: cells[at]} if at < len(cells) else {}, source, number, text_field)
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
