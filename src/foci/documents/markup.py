"""Trees of HTML (of web pages, Word documents and e-books) to pieces of Markdown, each below its headings."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lxml import etree, html

from foci.documents.pieces import PARAGRAPH, Piece
from foci.documents.repair import scripted
from foci.documents.tables import markdown

_NOTHING = {
    "head", "script", "style", "template", "noscript", "svg", "iframe", "object", "select", "button", "textarea",
    "audio", "video", "canvas", "map", "del", "s", "strike", "annotation", "annotation-xml",
}  # fmt: skip
_BLOCKS = {
    "html", "body", "p", "div", "section", "article", "main", "header", "footer", "nav", "aside", "ul", "ol", "dl",
    "dt", "dd", "li", "blockquote", "figure", "figcaption", "address", "center", "details", "summary", "fieldset",
    "legend", "form", "hr", "table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption", "hgroup", "search",
}  # fmt: skip
_HEADS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
ROWS, COLUMNS = 65534, 100
"""Rows (as in HTML) and columns of a table over which a <td> reaches, at most."""
_SECTIONS = ".//h1|.//h2|.//h3|.//h4|.//p[2]"
"""Headings, or several paragraphs: beside a table inside of a table they belong to a page that is laid out so."""
_BREAK = "\x0b"
"""Stands for <br> while a block is read: a line break of the source is a space."""
_SPACE = re.compile(r"[ \t\r\n\f\u00a0\u2009\u202f]+")


def tree_of(text: str) -> html.HtmlElement:
    """Returns the tree of an HTML page. Raises lxml.etree.ParserError where it holds nothing."""
    return html.document_fromstring(text.encode("utf-8"), parser=html.HTMLParser(encoding="utf-8"))


def text_of(element: etree._Element) -> str:
    """Returns all words of an element on one line, without scripts and styles."""
    return _Walk().inline(element)


def pieces_of_tree(element: etree._Element, above: str = "") -> Iterator[Piece]:
    """Yields the headings, paragraphs, list items, tables and code of a tree; `above` is the place of its beginning."""
    walk = _Walk(above=above)
    walk.into(element)
    walk.end()
    yield from walk.pieces


@dataclass
class _Walk:
    """A walk through a tree: the headings above, the text since the last block, and the pieces so far."""

    above: str = ""
    heads: list[tuple[int, str]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    marks: list[list[int] | None] = field(default_factory=list)
    mark: str = ""
    listed: bool = False
    flat: bool = False
    """Whether all is read on one line: a table inside of a cell is words."""
    buttons: bool = False
    """Whether the words of buttons are read, as those of a heading that opens its section are."""

    @property
    def place(self) -> str:
        """The headings above, from the outermost to the nearest."""
        return " > ".join([*([self.above] if self.above else []), *(words for _, words in self.heads)])

    def into(self, element: etree._Element) -> None:
        """Reads an element's own text, its children and what stands between them."""
        self.parts.append(element.text or "")
        for child in element:
            if isinstance(child.tag, str):
                self.child(child, child.tag.rpartition("}")[2].lower())
            self.parts.append(child.tail or "")

    def child(self, child: etree._Element, tag: str) -> None:
        """Reads one child by its kind."""
        nothing = tag in _NOTHING and not (tag == "button" and self.buttons)
        if nothing or _is_hidden(child) or _back_link(child, tag):
            return
        if tag in _HEADS:
            self.head(child, _HEADS[tag])
        elif tag == "table" and (code := _numbered_code(child)) is not None:
            self.child(code, "pre")
        elif tag == "table" and _is_data(child):
            self.end()
            self.put(_words(child) if self.flat else _table(child))
        elif tag == "pre":
            self.end()
            code = _code(child).strip("\n")
            self.put(f"```\n{code}\n```" if code.strip() else "")
        elif tag in ("ul", "ol"):
            self.end()
            self.listed = self.listed and bool(self.marks)
            self.marks.append([int(child.get("start") or 1)] if tag == "ol" and _number(child) else None)
            self.into(child)
            self.end()
            self.marks.pop()
        elif tag == "li":
            self.item(child)
        elif tag in ("sup", "sub"):
            self.parts.append(scripted(self.inline(child), tag == "sup"))
        elif tag == "br":
            self.parts.append(_BREAK)
        elif tag in _BLOCKS:
            self.end()
            self.into(child)
            self.end()
        else:
            self.into(child)

    def head(self, child: etree._Element, level: int) -> None:
        """Reads a heading: what follows stands below it."""
        self.end()
        if words := self.inline(child, buttons=True):
            self.heads = [*(head for head in self.heads if head[0] < level), (level, words)]
            self.put(f"{'#' * level} {words}")

    def item(self, child: etree._Element) -> None:
        """Reads a list item, which begins with its mark and is indented by its depth."""
        self.end()
        counter = self.marks[-1] if self.marks else None
        if counter and (child.get("value") or "").isdecimal():
            counter[0] = int(child.get("value") or 1)
        self.mark = "  " * max(0, len(self.marks) - 1) + (f"{counter[0]}. " if counter else "- ")
        if counter:
            counter[0] += 1
        self.into(child)
        self.end()
        self.mark = ""

    def inline(self, element: etree._Element, *, buttons: bool = False) -> str:
        """Returns all words of an element on one line."""
        inner = _Walk(flat=True, buttons=buttons)
        inner.into(element)
        inner.end()
        return _SPACE.sub(" ", " ".join(piece.text for piece in inner.pieces)).strip()

    def end(self) -> None:
        """Ends the block that is being read."""
        lines = [_SPACE.sub(" ", line).strip() for line in "".join(self.parts).split(_BREAK)]
        self.parts.clear()
        self.put("\n".join(line for line in lines if line))

    def put(self, text: str) -> None:
        """Adds a piece, unless it is empty."""
        text = text.replace("\u00ad", "").replace("\u200b", "")
        if not text.strip():
            return
        item = bool(self.mark)
        piece = Piece(self.mark + text, self.place)
        self.pieces.append(replace(piece, before="\n") if item and self.listed else piece)
        self.listed, self.mark = item, ""


def _code(element: etree._Element) -> str:
    """Returns the text of preformatted words as it stands, with a line end for each <br>."""
    said = [element.text or ""]
    for child in element:
        tag = child.tag.rpartition("}")[2].lower() if isinstance(child.tag, str) else ""
        if tag == "br":
            said.append("\n")
        elif tag and tag not in _NOTHING and not _is_hidden(child):
            said.append(_code(child))
        said.append(child.tail or "")
    return "".join(said)


def _number(element: etree._Element) -> bool:
    return (element.get("start") or "1").lstrip("-").isdigit()


def _is_hidden(element: etree._Element) -> bool:
    return element.get("hidden") is not None or "display:none" in (element.get("style") or "").replace(" ", "")


def _back_link(child: etree._Element, tag: str) -> bool:
    """Says whether an element is the arrow of a footnote, which leads back to the text."""
    return tag == "a" and "".join(child.itertext()).strip() in ("↑", "↩", "↩︎", "^")


def _is_data(table: etree._Element) -> bool:
    """Says whether a table holds rows of data.

    One of a single cell only places things; so does one with tables in more than half of its rows, or beside headings
    and paragraphs, or without heads and without two rows of as many cells.
    """
    rows = [_cells(row) for row in _rows(table)]
    if sum(map(len, rows)) < 2:
        return False
    if not (nested := sum(any(cell.xpath(".//table") for cell in cells) for cells in rows)):
        return True
    if any(cell.xpath(".//table") and cell.xpath(_SECTIONS) for cells in rows for cell in cells):
        return False
    widths = Counter(len(cells) for cells in rows if len(cells) > 1)
    alike = max(widths.values(), default=0) > 1 or any(cell.tag == "th" for cells in rows for cell in cells)
    return alike and 2 * nested <= len(rows)


def _rows(table: etree._Element) -> Iterator[etree._Element]:
    """Yields each <tr> of a table, without those of the tables in it."""
    return (row for row in table.iter("tr", "{*}tr") if next(row.iterancestors("table", "{*}table")) is table)


def _cells(row: etree._Element) -> list[etree._Element]:
    found: list[etree._Element] = row.xpath("./*[self::td or self::th]")
    return found


def _numbered_code(table: etree._Element) -> etree._Element | None:
    """Returns the code of a table that places the numbers of its lines beside it; None where a table is another one."""
    code = table.xpath(".//pre")
    if len(code) != 2 or len(list(_rows(table))) != 1 or len(table.xpath(".//*[self::td or self::th]")) != 2:
        return None
    numbers = "".join(code[0].itertext()).split()
    first = int(numbers[0]) if numbers and numbers[0].isdecimal() else 0
    return code[1] if numbers and numbers == [str(first + n) for n in range(len(numbers))] else None


def _words(table: etree._Element) -> str:
    """Returns a table on one line, its cells parted by commas and its rows by semicolons."""
    rows = ([words for cell in _cells(row) if (words := _Walk().inline(cell))] for row in _rows(table))
    return "; ".join(", ".join(row) for row in rows if row)


def _table(table: etree._Element) -> str:
    """Returns a table as Markdown: a cell over several rows stands in each of them, in the first of its columns."""
    rows: list[list[str]] = []
    below: dict[int, tuple[int, str]] = {}
    for number, row in enumerate(_rows(table)):
        if cells := _cells(row):
            rows.append(_row(cells, number, below))
    caption = " ".join(_Walk().inline(one) for one in table.iter("caption"))
    return PARAGRAPH.join(part for part in (caption, markdown(rows)) if part)


def _row(cells: list[etree._Element], number: int, below: dict[int, tuple[int, str]]) -> list[str]:
    """Returns the words of a row by column.

    `below` holds the columns that cells of rows above reach into: the last row that they reach, and their words. The
    row's own cells are added to it.
    """
    held = {column: words for column, (last, words) in below.items() if last >= number}
    said: list[str] = []
    for cell in cells:
        while len(said) in held:
            said.append(held[len(said)])
        words, last = _Walk().inline(cell), number + _span(cell, "rowspan", ROWS) - 1
        for _ in range(_span(cell, "colspan", COLUMNS)):
            if len(said) not in held:
                below[len(said)] = last, words
            said.append(words or held.get(len(said), ""))
            words = ""
    return said + [held.get(column, "") for column in range(len(said), max(held, default=-1) + 1)]


def _span(cell: etree._Element, key: str, most: int) -> int:
    given = cell.get(key) or "1"
    return min(max(int(given), 1), most) if given.isdecimal() else 1
