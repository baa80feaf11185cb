"""Text files: .txt and .md, one document per file, UTF-8. Of the settings before a Markdown page the title is kept."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from foci.corpus.documents import EXCERPT, BadLine, Document, Format
from foci.system.texts import NotText, decoded

_SETTINGS = re.compile(
    r"---[^\S\n]*\n((?:(?:[\w.-]+:|[^\S\n]+\S|- |#).*\n|[^\S\n]*\n)+)(?:---|\.\.\.)[^\S\n]*(?:\n|\Z)"
)
"""The front matter of a page for Jekyll, Hugo, Docusaurus or Pandoc: YAML between two lines of hyphens."""
_KEY = re.compile(r"\s*(?:#.*\n\s*)*[\w.-]+:(?:\s|\Z)")
"""How front matter begins; a slide between two lines begins otherwise."""
_HEADED = re.compile(r"\s*(?:#\s|<h1|\S.*\n=+[^\S\n]*(?:\n|\Z))", re.IGNORECASE)
"""A page that begins with a heading of its own."""


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
        if source.lower().endswith(".md"):
            text = _without_settings(text)
        if body := text.lstrip():
            line = text.count("\n", 0, len(text) - len(body)) + 1
            yield Document(body.rstrip(), source, line, whole_file=True)


def _without_settings(text: str) -> str:
    r"""Returns a page without its front matter, as many lines long; its title becomes a heading where it has none.

    >>> _without_settings("---\ntitle: 'Pumps'\nid: 7\n---\nThey are red.").split("\n")
    ['', '', '# Pumps', '', 'They are red.']
    """
    found = _SETTINGS.match(text)
    if found is None or _KEY.match(found.group(1)) is None:
        return text
    lines, body, title = found.group().count("\n"), text[found.end() :], _title(found.group(1))
    if not title or _HEADED.match(body):
        return "\n" * lines + body
    return "\n" * (lines - 2) + f"# {title}\n\n{body}"


def _title(settings: str) -> str:
    """Returns the title in YAML; "" where it has none that is a text."""
    try:
        read = yaml.safe_load(settings)
    except yaml.YAMLError:
        return ""
    title = read.get("title") if isinstance(read, dict) else None
    return " ".join(title.split()) if isinstance(title, str) else ""
