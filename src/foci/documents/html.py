"""Web pages (.html): the part of a page that trafilatura finds its main text in, without menus, heads and feet.

trafilatura says where the text is; it is read from the page itself, because what trafilatura gives back lacks captions,
notes in boxes and formulas (findings/trafilatura_captions_and_notes.sh).
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import trafilatura
from lxml import etree, html

from foci.documents.encodings import decoded
from foci.documents.markup import pieces_of_tree, text_of, tree_of
from foci.documents.pieces import Piece, Unreadable

MOST = 0.9
"""The share of the lines of the main text that the part of the page which is read holds, at least."""
_NO_LETTERS = re.compile(r"[\W_]+")
_MENUS = frozenset({
    "nav", "navbar", "navigation", "menu", "breadcrumb", "breadcrumbs", "sidebar", "cookie", "cookies", "share",
    "sharing", "social", "related", "comments", "pagination", "editsection", "headerlink", "advertisement",
    "newsletter", "footer", "header", "toc", "skip",
})  # fmt: skip
"""Words in the names of a page's parts (class, id, role) that are no text, if trafilatura leaves them out too."""
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_FRAME = ("nav", "footer", "form", "dialog", "aside", "header")
_LISTS = ("ul", "ol", "div", "table", "p", "section")


def pieces(path: Path) -> Iterator[Piece]:
    """Yields the headings, paragraphs, list items and tables of a page's main text.

    Raises Unreadable for a page whose text only a script writes.
    """
    yield from pieces_of_page(path.read_bytes())


def pieces_of_page(raw: bytes) -> Iterator[Piece]:
    """Yields the pieces of a page's main text, from its bytes; raises as `pieces`."""
    text = decoded(raw)
    if not text.strip():
        return
    try:
        tree = tree_of(text)
    except etree.ParserError:
        return
    title = _title(tree)
    body = tree if tree.find("body") is None else tree.find("body")
    scripts = len(tree.xpath("//script"))
    main = _main_lines(text)
    region = _region(body, main)
    _prune(region, "".join(main))
    if not text_of(region):
        if scripts:
            raise Unreadable("no text in it: scripts write it when a browser shows it; save the page from the browser")
        return
    headed = bool(region.xpath(".//h1|self::h1"))
    if title and not headed:
        yield Piece(f"# {title}", title)
    yield from pieces_of_tree(region, "" if headed else title)


def _title(tree: html.HtmlElement) -> str:
    """Returns the first heading of a page, else its title; "" where it has neither."""
    heads = [words for head in tree.xpath("//h1") if (words := text_of(head))]
    return heads[0] if heads else " ".join((tree.findtext(".//title") or "").split())


def _main_lines(text: str) -> list[str]:
    """Returns the lines of the main text that trafilatura finds, their letters and digits alone."""
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    found = trafilatura.extract(text, output_format="txt", include_comments=False, favor_recall=True) or ""
    return [line for said in found.splitlines() if (line := _letters(said))]


def _letters(text: str) -> str:
    return _NO_LETTERS.sub("", text).casefold()


def _region(body: html.HtmlElement, main: list[str]) -> html.HtmlElement:
    """Returns the smallest element that holds most lines of the main text; the body where none does."""
    lines, above = set(main), Counter[html.HtmlElement]()
    found = 0
    for element in body.iter("p", "li", "td", "th", *_HEADINGS, "pre", "blockquote", "dd", "dt"):
        if _letters(text_of(element)) in lines:
            found += 1
            above.update(element.iterancestors())
    inside = [one for one, count in above.items() if count >= MOST * found and _is_below(one, body)]
    return max(inside, key=lambda one: len(list(one.iterancestors())), default=body) if found > 2 else body


def _is_below(element: html.HtmlElement, body: html.HtmlElement) -> bool:
    return element is body or any(one is body for one in element.iterancestors())


def _prune(region: html.HtmlElement, main: str) -> None:
    """Removes menus, heads, feet and lists of links from an element, unless the main text holds them."""
    half = len(_letters(text_of(region))) / 2
    for element in list(region.iter(etree.Element)):
        if element is region or element.getparent() is None or len(_letters(text_of(element))) > half:
            continue
        if (_is_frame(element) or _is_links(element)) and not _is_in(element, main):
            element.drop_tree()


def _is_frame(element: html.HtmlElement) -> bool:
    keys = ("class", "role") if _is_named_by_its_heading(element) else ("class", "role", "id")
    names = " ".join(element.get(key) or "" for key in keys).lower()
    boxed = element.tag == "aside" and not element.xpath(".//a")
    return (element.tag in _FRAME and not boxed) or not _MENUS.isdisjoint(re.split(r"[^a-z0-9]+", names))


def _is_named_by_its_heading(element: html.HtmlElement) -> bool:
    """Says whether an element is a heading, or a section, whose id Sphinx, Pandoc or MkDocs made from the heading."""
    sections = element.tag in ("section", *_HEADINGS) or "section" in (element.get("class") or "").split()
    heading = next(element.iter(*_HEADINGS), None) if sections else None
    return heading is not None and _letters(text_of(heading)) == _letters(element.get("id") or "").rstrip("0123456789")


def _is_links(element: html.HtmlElement) -> bool:
    """Says whether nearly all words of an element are in links, of which it has three or more."""
    if element.tag not in _LISTS:
        return False
    links = [_letters(text_of(link)) for link in element.iter("a")]
    return len(links) > 2 and len("".join(links)) >= 0.9 * len(_letters(text_of(element)))


def _is_in(element: html.HtmlElement, main: str) -> bool:
    """Says whether the main text holds most of an element's blocks, by their letters."""
    blocks = [words for piece in pieces_of_tree(element) if (words := _letters(piece.text))]
    held = sum(len(words) for words in blocks if words in main)
    return bool(blocks) and held >= 0.5 * sum(map(len, blocks))
