"""Slides (.pptx), read by python-pptx: titles, texts, tables and notes. Slide numbers, dates and feet are left out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pptx
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.shapes.group import GroupShape
from pptx.shapes.picture import Picture

from foci.documents.pieces import Lost, Piece, Unreadable, check_archive
from foci.documents.repair import scripted
from foci.documents.tables import markdown

KIND = "a PowerPoint presentation (.pptx)"
ROW = 457200
"""Height in EMU (half an inch) within which shapes stand side by side, and are read from left to right."""
FRAME = (PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.HEADER)


def pieces(path: Path) -> Iterator[Piece | Lost]:
    """Yields the title, texts, tables and notes of each slide; `Lost` for a slide that has pictures alone.

    Raises Unreadable for a file that is no presentation, or a damaged one.
    """
    check_archive(path, KIND, "ppt/presentation.xml")
    try:
        slides = list(pptx.Presentation(str(path)).slides)
    except Exception as error:
        raise Unreadable(
            f"a damaged presentation ({type(error).__name__}: {error}); open it and save it again"
        ) from error
    for number, slide in enumerate(slides, start=1):
        place = f"slide {number}"
        texts = list(_texts(slide))
        yield from (Piece(text, place) for text in texts)
        if not texts and any(isinstance(shape, Picture) for shape in slide.shapes):
            yield Lost(place, "a slide of pictures without text; write what they say in its notes")


def _texts(slide: Any) -> Iterator[str]:
    """Yields the texts of a slide in reading order: its title, its shapes from top to bottom, its notes."""
    title = slide.shapes.title
    if title is not None and (words := " ".join(_lines(title.text_frame)).strip()):
        yield f"# {words}"
    for shape in _in_order(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            yield from _of_shape(shape)
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None:
        yield from (line for line in _lines(frame) if line)


def _in_order(shapes: Iterable[Any]) -> list[Any]:
    """Returns shapes from top to bottom; those of about the same height from left to right."""
    return sorted(shapes, key=lambda shape: ((shape.top or 0) // ROW, shape.left or 0))


def _of_shape(shape: Any) -> Iterator[str]:
    if shape.is_placeholder and shape.placeholder_format.type in FRAME:
        return
    if isinstance(shape, GroupShape):  # python-pptx knows no type for a shape without an outline
        for inner in _in_order(shape.shapes):
            yield from _of_shape(inner)
    elif getattr(shape, "has_table", False) and shape.has_table:
        rows = [["\n".join(_lines(cell.text_frame)) for cell in row.cells] for row in shape.table.rows]
        yield markdown(rows)
    elif shape.has_text_frame and (text := "\n".join(line for line in _lines(shape.text_frame) if line)):
        yield text


def _lines(frame: Any) -> list[str]:
    """Returns the paragraphs of a text frame, each on its lines."""
    return [line.strip() for one in frame.paragraphs for line in _line(one).split("\v")]


def _line(paragraph: Any) -> str:
    """Returns the text of a paragraph; what stands above or below its line is told from what stands on it."""
    said = ""
    for run in paragraph._p.content_children:
        text = getattr(run, "text", "") or ""
        shift = next((int(value) for value in run.xpath("./a:rPr/@baseline") if value.lstrip("-").isdigit()), 0)
        said += scripted(text, shift > 0) if shift else text
    return said
