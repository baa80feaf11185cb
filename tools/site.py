"""What mkdocs.yml needs beside its settings: pages made of the project's own files, and doctests shown as code.

`on_page_markdown` is a hook of MkDocs. A page that is one of `COPIES` shows a file of the project; a line
`<!-- README.md: NAME -->` of any page becomes the part of the README between `<!-- NAME -->` and `<!-- /NAME -->`.
Links are made to fit the page. `Docstrings` is an extension of griffe, which reads the docstrings.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Module, Object

ROOT = Path(__file__).parent.parent
COPIES = {
    "index.md": "README.md",
    "log.md": "LOG.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
"""Page by file of the project's root that it shows."""
PAGES = {source: page for page, source in COPIES.items()}

_PART = re.compile(r"^<!-- README\.md: (\w+) -->$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_DOCTEST = re.compile(r"^([ ]*)>>> .*(?:\n[ ]*\S.*)*", re.MULTILINE)
_DIRECTIVE = re.compile(r"  # doctest:.*")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns the Markdown of a page with the project's files and the README's parts put in."""
    name = page.file.src_uri
    if name in COPIES:
        return fitted((ROOT / COPIES[name]).read_text(encoding="utf-8"), name)
    return _PART.sub(lambda found: fitted(part(found[1]), name), markdown)


def part(name: str) -> str:
    """Returns the README's text between `<!-- NAME -->` and `<!-- /NAME -->`; raises ValueError where it has none."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^<!-- {name}\b.*? -->\n(.*?)^<!-- /{name} -->$", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"README.md has no part {name!r}; put it between <!-- {name} --> and <!-- /{name} -->")
    return found[1]


def fitted(text: str, page: str) -> str:
    """Returns text of the project's root with its links as `page` needs them; a file without a page loses its link.

    `page` is relative to docs/, as links are in MkDocs.
    """

    def link(found: re.Match[str]) -> str:
        mark, words, target, anchor = found[1], found[2], found[3], found[4] or ""
        if "://" in target:
            return found[0]
        inside = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if inside is None:
            return words
        return f"{mark}[{words}]({posixpath.relpath(inside, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(link, text)


def fenced(docstring: str) -> str:
    """Returns a docstring with every doctest, up to the next empty line, in a fenced block."""

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}```pycon\n{_DIRECTIVE.sub('', found[0])}\n{found[1]}```"

    return _DOCTEST.sub(block, docstring)


class Docstrings(Extension):
    """Shows doctests as code, and every object once, in the module that defines it."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Is called by griffe for every module, class, function and attribute."""
        if obj.docstring is None:
            return
        obj.docstring.value = fenced(obj.docstring.value)
        if isinstance(obj, Module) and obj.exports:
            names = ", ".join(f"`{name}`" for name in obj.exports)
            obj.docstring.value += f"\n\n**Import from `{obj.path}`:** {names}."
            obj.exports = None
