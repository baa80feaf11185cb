"""Workbooks (.xlsx), read by openpyxl: each sheet as a Markdown table; a long one in parts under the same head."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl

from foci.documents.pieces import Lost, Piece, Unreadable, check_archive
from foci.documents.tables import between, parts

KIND = "an Excel workbook (.xlsx)"
_LITERALS = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|[_*].')
"""Parts of a cell's format that no digits stand for: quoted words, single signs, colours, and space to fill."""
_PLACES = re.compile(r"\.(0+)")


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
    book = _opened(path, data_only=True)
    formulas = _opened(path, data_only=False) if _has_formulas(path) else None
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


def _opened(path: Path, *, data_only: bool) -> Any:
    """Returns a workbook whose sheets are read to their ends: the size that a file states may be wrong."""
    book = openpyxl.load_workbook(path, read_only=True, data_only=data_only)
    for sheet in book.worksheets:
        sheet.reset_dimensions()
    return book


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
    """Yields the numbers of rows and their cells, as many as the longest row so far has before its empty end."""
    width = 0
    for number, row in enumerate(sheet.iter_rows(), start=1):
        cells = [_text(cell) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        width = max(width, len(cells))
        yield number, cells + [""] * (width - len(cells)) if cells else cells


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
    section = _LITERALS.sub("", shown).partition(";")[0]  # the others are for negative numbers, zero and words
    if "%" in section:
        return _share(value, section)
    return str(int(value)) if value == int(value) else f"{value:.15g}"


def _share(value: int | float, section: str) -> str:
    """Returns a share in percent, with the decimal places of its format and with more where it has more."""
    exact = Decimal(f"{value:.15g}") * 100
    asked = _PLACES.search(section)
    held = len(f"{exact.normalize():f}".partition(".")[2])
    return f"{exact:.{max(held, len(asked.group(1)) if asked else 0)}f} %"
