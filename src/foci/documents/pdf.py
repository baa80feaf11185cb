"""PDF documents, read by pypdfium2: characters at their places, put into reading order by `foci.documents.pages`."""

import ctypes
import math
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium

from foci.documents.letters import Letter, runs_of
from foci.documents.pages import Page, pieces_of_pages
from foci.documents.pieces import Lost, Piece, Unreadable
from foci.documents.repair import HYPHEN
from foci.documents.rules import Rule, rules_of

HYPHEN_CODE = ord(HYPHEN)
"""How pdfium tells of a hyphen at a line's end."""
RULES = 1000
"""Rules of a page, at most; a page with more is a drawing."""
ASKEW = 10
"""Degrees by which a scanned page may be turned."""
_SPACES = frozenset({0x20, 0xA0, 0x09, 0x0D, 0x0A, 0x3000})
_ENDS = frozenset({0x0D, 0x0A})
_LEFT_OUT = frozenset({0xAD, 0xFFFE})
SCANNED = "a scanned page without text; add text to it first: ocrmypdf IN.pdf OUT.pdf"
DRAWN = "its text is drawn as shapes, not written; add text to it first: ocrmypdf --force-ocr IN.pdf OUT.pdf"
UNMAPPED = "its fonts do not say which letters they draw; add text to it first: ocrmypdf --force-ocr IN.pdf OUT.pdf"


def pieces(path: Path) -> Iterator[Piece | Lost]:
    """Yields the paragraphs and tables of a PDF in reading order, and `Lost` for each page without text.

    Raises Unreadable for an encrypted or damaged file, or where no page has text.
    """
    document = _opened(path)
    try:
        pages = [_page(document, number) for number in range(len(document))]
    finally:
        document.close()
    if pages and not any(page.runs for page in pages) and (lost := [page.lost for page in pages if page.lost]):
        what = "all its pages are" if len(lost) == len(pages) else f"{len(lost)} of its {len(pages)} pages are"
        raise Unreadable(f"no text in it: {what} pictures ({lost[0]})" if len(pages) > 1 else lost[0])
    yield from pieces_of_pages(pages)


def _opened(path: Path) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            reason = (
                "a PDF that is locked by a password; save it without one: qpdf --decrypt --password=... IN.pdf OUT.pdf"
            )
        elif "security" in str(error).lower():
            reason = "a PDF with a protection that cannot be read; print it to a new PDF"
        else:
            reason = (
                f"no PDF, or a damaged one ({str(error).rstrip('.')}); get it again, or repair it: qpdf IN.pdf OUT.pdf"
            )
        raise Unreadable(reason) from error


def _page(document: pypdfium2.PdfDocument, index: int) -> Page:
    """Reads one page; a page that pdfium cannot read is lost, with the reason."""
    try:
        page = document[index]
    except pypdfium2.PdfiumError as error:
        return Page(index + 1, (), lost=f"a damaged page ({error}); repair the file: qpdf IN.pdf OUT.pdf")
    rules, drawn, covered = _drawing(page)
    text = page.get_textpage()
    try:
        written, unknown = _letters(text)
    finally:
        text.close()
        page.close()
    runs, lost = runs_of(written, [rule for rule in rules if not rule.level]), ""
    if unknown > 20 and unknown > 0.3 * (len(written) + unknown):
        runs, lost = [], UNMAPPED
    elif covered > 0.5 and len(written) < 40:
        lost = SCANNED
    elif not runs and drawn > 50:
        lost = DRAWN
    return Page(index + 1, tuple(runs), tuple(rules), lost)


def _drawing(page: pypdfium2.PdfPage) -> tuple[list[Rule], int, float]:
    """Returns the rules of a page, the number of shapes, and the share of the page that pictures cover (0 to 1)."""
    rules: list[Rule] = []
    shapes, area = 0, 0.0
    for thing in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE]):
        if len(rules) > RULES:
            rules = []  # a drawing, not tables
            break
        if thing.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = thing.get_bounds()
            area += max(0.0, right - left) * max(0.0, top - bottom)
        else:
            shapes += 1
            for points in _paths(thing):
                rules += rules_of(points)
    width, height = page.get_size()
    return rules, shapes, area / max(width * height, 1.0)


def _paths(thing: pypdfium2.PdfObject) -> list[list[tuple[float, float]]]:
    """Returns the corners of each closed or open line of a shape, on the page."""
    matrix = thing.get_matrix()
    x, y = ctypes.c_float(), ctypes.c_float()
    found: list[list[tuple[float, float]]] = []
    for number in range(min(pdfium.FPDFPath_CountSegments(thing), 1000)):
        segment = pdfium.FPDFPath_GetPathSegment(thing, number)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        point = matrix.on_point(x.value, y.value)
        if pdfium.FPDFPathSegment_GetType(segment) == pdfium.FPDF_SEGMENT_MOVETO or not found:
            found.append([])
        found[-1].append(point)
        if pdfium.FPDFPathSegment_GetClose(segment):
            found[-1].append(found[-1][0])
    return found


def _letters(text: pypdfium2.PdfTextPage) -> tuple[list[Letter], int]:
    """Returns the characters of a page in its own order, and the number of those without a letter."""
    box, x, y, page = pdfium.FS_RECTF(), ctypes.c_double(), ctypes.c_double(), text.raw
    found: list[Letter] = []
    unknown, spaced, broken, angle, level = 0, False, False, 0, math.nan
    for n in range(text.count_chars()):
        code = pdfium.FPDFText_GetUnicode(page, n)
        if code in _SPACES:
            spaced, broken = True, code in _ENDS and (broken or not spaced)
            continue
        if code in _LEFT_OUT:
            continue
        if code != HYPHEN_CODE and _is_unknown(code):
            unknown += 1
            continue
        pdfium.FPDFText_GetLooseCharBox(page, n, box)
        pdfium.FPDFText_GetCharOrigin(page, n, x, y)
        if y.value != level or angle:  # characters on one level are written at one angle
            angle, level = _angle(math.degrees(pdfium.FPDFText_GetCharAngle(page, n))), y.value
        letter = _turned(code, box, (x.value, y.value), angle, spaced)
        if broken and found and abs(letter.left - found[-1].right) < 0.1 * letter.height:
            letter = letter._replace(spaced=False)  # pdfium ends a line after a deep subscript; the word goes on
        found.append(letter)
        spaced = broken = False
    return found, unknown


def _angle(degrees: float) -> int:
    """Returns an angle in whole degrees, 0 to 359; text that was scanned a little askew counts as straight."""
    quarter = 90 * round(degrees / 90)
    return (quarter if abs(degrees - quarter) < ASKEW else round(degrees)) % 360


def _is_unknown(code: int) -> bool:
    """Says whether a code is no character: a control code, one for private use, or the sign of a missing one."""
    return code < 0x20 or 0xE000 <= code <= 0xF8FF or 0xFFFD <= code <= 0xFFFF


def _turned(code: int, box: pdfium.FS_RECTF, origin: tuple[float, float], angle: int, spaced: bool) -> Letter:
    """Returns a character in the coordinates of a page that is turned until its text is level."""
    x, y = origin
    if angle == 0:
        return Letter(code, box.left, box.right, y, max(box.top - box.bottom, 1.0), angle, spaced)
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    corners = [(u * cos - v * sin, u * sin + v * cos) for u in (box.left, box.right) for v in (box.bottom, box.top)]
    left, right = min(u for u, _ in corners), max(u for u, _ in corners)
    height = max(v for _, v in corners) - min(v for _, v in corners)
    return Letter(code, left, right, x * sin + y * cos, max(height, 1.0), angle, spaced)
