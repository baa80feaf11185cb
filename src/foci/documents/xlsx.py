"""Workbooks (.xlsx), read by openpyxl: each sheet as a Markdown table; a long one in parts under the same head."""

import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl

from foci.documents.pieces import Lost, Piece, Unreadable, check_archive
from foci.documents.tables import between, parts

KIND = "an Excel workbook (.xlsx)"


def pieces(path: Path) -> Iterator[Piece | Lost]:
    """Yields the visible sheets; `Lost` for hidden ones, and for formulas whose results the file does not hold.

    Raises Unreadable for a file that is no workbook, or a damaged one.
    """
    check_archive(path, KIND, "xl/workbook.xml")
    try:
        yield from _sheets(path)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"a damaged workbook ({type(error).__name__}: {error}); open it and save it again") from error


def _sheets(path: Path) -> Iterator[Piece | Lost]:
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    formulas = openpyxl.load_workbook(path, read_only=True) if _has_formulas(path) else None
    try:
        for sheet in book.worksheets:
            place = f"sheet {sheet.title}"
            if sheet.sheet_state != "visible":
                yield Lost(place, "a hidden sheet; show it, or leave it out")
                continue
            for first, last, text in parts(_rows(sheet)):
                yield Piece(text, f"{place}, {between('row', first, last)}", apart=True)
            if formulas is not None and (count := _without_result(sheet, formulas[sheet.title])):
                yield Lost(place, f"{count} formulas without a stored result; open the file in Excel and save it again")
    finally:
        book.close()
        if formulas is not None:
            formulas.close()


def _has_formulas(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
        return any(_holds(archive, name, (b"<f>", b"<f ")) for name in sheets)


def _holds(archive: zipfile.ZipFile, name: str, signs: Sequence[bytes]) -> bool:
    """Says whether a file of an archive holds one of some bytes; reads a part at a time."""
    kept = b""
    with archive.open(name) as file:
        while read := file.read(2**20):
            if any(sign in kept + read for sign in signs):
                return True
            kept = read[-8:]
    return False


def _without_result(sheet: Any, formulas: Any) -> int:
    """Returns how many formulas of a sheet have no result."""
    pairs = zip(sheet.iter_rows(), formulas.iter_rows(), strict=False)
    return sum(
        known.value is None and isinstance(made.value, str) and made.value.startswith("=")
        for results, rules in pairs
        for known, made in zip(results, rules, strict=False)
    )


def _rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(sheet.iter_rows(), start=1):
        yield number, [_text(cell) for cell in row]


def _text(cell: Any) -> str:
    """Returns a cell as a person sees it: dates begin with the year, whole numbers have no point, shares are in %."""
    value, shown = cell.value, str(getattr(cell, "number_format", "") or "")
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "seconds")
    if isinstance(value, date | time | timedelta):
        return str(value)
    if isinstance(value, int | float):
        return _number(value, shown)
    return str(value)


def _number(value: int | float, shown: str) -> str:
    if shown and not shown.strip("0") and value == int(value):
        return f"{int(value):0{len(shown)}d}"  # a code such as 007
    if shown.endswith("%"):
        places = len(shown.partition(".")[2].rstrip("%"))
        return f"{100 * value:.{places}f} %"
    return str(int(value)) if value == int(value) else f"{value:.15g}"
