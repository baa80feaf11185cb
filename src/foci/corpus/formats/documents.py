"""PDF, Word and HTML files, slides, workbooks and e-books: one document per file, read by `foci.documents`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from foci.corpus.documents import BadLine, Document, Format, LeftOut
from foci.documents import READERS, Lost, Piece, Unreadable, pieces_of


class Documents(Format):
    """A file's paragraphs, tables and headings, with an empty line between; each knows its page or its headings."""

    endings = tuple(READERS)
    whole = True

    def read(self, source: str, text_field: str) -> Iterator[Document | BadLine]:
        """Yields the document (of a workbook, each part of a table), and a `LeftOut` for each part that is not read."""
        held: list[Piece] = []
        try:
            for piece in pieces_of(Path(source), source):
                if isinstance(piece, Lost):
                    yield LeftOut(source, 1, piece.reason, place=piece.place)
                    continue
                if piece.apart and held:
                    yield _joined(held, source)
                    held = []
                held.append(piece)
        except Unreadable as error:
            yield BadLine(source, 1, str(error))
            return
        if held:
            yield _joined(held, source)


def _joined(pieces: Sequence[Piece], source: str) -> Document:
    """Returns the document that some pieces make; it knows where each page or section begins."""
    parts: list[str] = []
    places: list[tuple[int, str]] = []
    at = 0
    for piece in pieces:
        before = piece.before if parts else ""
        if piece.place and (not places or places[-1][1] != piece.place):
            places.append((at + len(before), piece.place))
        parts += [before, piece.text]
        at += len(before) + len(piece.text)
    return Document("".join(parts).rstrip(), source, 1, places=tuple(places))
