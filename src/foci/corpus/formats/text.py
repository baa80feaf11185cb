"""Text files: .txt and .md, one document per file, UTF-8."""

from collections.abc import Iterator
from pathlib import Path

from foci.corpus.documents import EXCERPT, BadLine, Document, Format
from foci.system.texts import NotText, decoded


class Text(Format):
    """Plain text and Markdown; the whole file is one document."""

    endings = (".txt", ".md")
    whole = True

    def read(self, source: str, text_field: str) -> Iterator[Document | BadLine]:
        """Yields the file's text without white space at its edges; line ends become newlines."""
        raw = Path(source).read_bytes()
        try:
            text = decoded(raw).replace("\r\n", "\n").replace("\r", "\n")
        except NotText as error:
            line = raw.count(b"\n", 0, error.at) + 1
            near = raw[max(0, error.at - EXCERPT // 2) :][:EXCERPT].decode("utf-8", "replace")
            yield BadLine(source, line, str(error), near)
            return
        if body := text.lstrip():
            line = text.count("\n", 0, len(text) - len(body)) + 1
            yield Document(body.rstrip(), source, line, whole_file=True)
