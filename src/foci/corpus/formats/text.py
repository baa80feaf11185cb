"""Text files: .txt and .md, one document per file, UTF-8."""

from collections.abc import Iterator
from pathlib import Path

from foci.corpus.documents import EXCERPT, BadLine, Document, Format, not_utf8


class Text(Format):
    """Plain text and Markdown; the whole file is one document."""

    endings = (".txt", ".md")

    def read(self, source: str, text_field: str) -> Iterator[Document | BadLine]:
        """Yields the file's text without white space at its edges; line ends become newlines."""
        raw = Path(source).read_bytes()
        try:
            text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            near = raw[max(0, error.start - EXCERPT // 2) :][:EXCERPT].decode("utf-8", "replace")
            yield BadLine(source, line, not_utf8(raw, error), near)
            return
        body = text.lstrip()
        if not body:
            yield BadLine(source, 1, "empty text")
            return
        line = text.count("\n", 0, len(text) - len(body)) + 1
        yield Document(body.rstrip(), source, line, whole_file=True)
