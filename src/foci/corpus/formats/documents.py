"""Documents with pages or headings (PDF, Word, HTML): one document per file, read by `foci.documents`."""

from collections.abc import Iterator
from pathlib import Path

from foci.corpus.documents import BadLine, Document, Format, LeftOut
from foci.documents import READERS, Lost, Unreadable, pieces_of


class Documents(Format):
    """A file's paragraphs, tables and headings, with an empty line between; each knows its page or its headings."""

    endings = tuple(READERS)
    whole = True

    def read(self, source: str, text_field: str) -> Iterator[Document | BadLine]:
        """Yields the document, and before it a `LeftOut` for each part that cannot be read."""
        path = Path(source)
        parts: list[str] = []
        places: list[tuple[int, str]] = []
        at = 0
        try:
            for piece in pieces_of(path, source):
                if isinstance(piece, Lost):
                    yield LeftOut(source, 1, piece.reason, place=piece.place)
                    continue
                before = piece.before if parts else ""
                if piece.place and (not places or places[-1][1] != piece.place):
                    places.append((at + len(before), piece.place))
                parts += [before, piece.text]
                at += len(before) + len(piece.text)
        except Unreadable as error:
            yield BadLine(source, 1, str(error))
            return
        if text := "".join(parts).rstrip():
            yield Document(text, source, 1, places=tuple(places))
