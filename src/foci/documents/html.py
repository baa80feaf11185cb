"""Web pages (.html), whose main text trafilatura finds; menus, heads and feet are left out."""

import codecs
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import trafilatura
from lxml import etree, html

from foci.documents.markup import pieces_of_tree, text_of, tree_of
from foci.documents.pieces import Piece, Unreadable

LEAST = 0.5
"""The share of a page's words, without its menus, that its main text holds at least; else the whole page is read."""
_SPACES = {" ": "\ue000", "\t": "\ue001", "\n": "\ue002"}
"""Signs that stand for white space in code while trafilatura, which would make one space of it, reads a page."""
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?\s*([\w-]+)", re.IGNORECASE)
_FRAME = ("nav", "header", "footer", "aside", "form", "dialog")


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
        tree = tree_of(text.encode("utf-8"))
    except etree.ParserError:
        return
    scripts = len(tree.xpath("//script"))
    title = text_of(next(iter(tree.xpath("//h1")), html.Element("p"))) or text_of_title(tree)
    body = _unframed(tree)
    if not (words := len(text_of(body).split())):
        if scripts:
            raise Unreadable("no text in it: scripts write it when a browser shows it; save the page from the browser")
        return
    main = _main(tree_of(text.encode("utf-8")))
    chosen = main if main is not None and len(text_of(main).split()) >= LEAST * words else body
    if title and not chosen.xpath("//h1"):
        yield Piece(f"# {title}", title)
    else:
        title = ""
    for piece in pieces_of_tree(chosen, title):
        yield replace(piece, text=_shown(piece.text))


def decoded(raw: bytes) -> str:
    """Returns the text of a page: UTF-16 with a mark, else UTF-8, else as the page says, else Windows-1252."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        named = _CHARSET.search(raw[:4096])
        name = named.group(1).decode("ascii") if named else "cp1252"
        try:
            codec = codecs.lookup(name).name
        except LookupError:
            codec = "cp1252"
        return raw.decode("cp1252" if codec in ("iso8859-1", "utf-8", "ascii") else codec, "replace")


def text_of_title(tree: html.HtmlElement) -> str:
    """Returns the title of a page, "" where it has none."""
    return " ".join((tree.findtext(".//title") or "").split())


def _unframed(tree: html.HtmlElement) -> html.HtmlElement:
    """Returns the body without menus, heads, feet and forms; with them where nothing else has words."""
    body = tree.find("body")
    if body is None:
        return tree
    whole = html.fromstring(html.tostring(body, encoding="unicode"))
    for tag in _FRAME:
        for one in whole.xpath(f"//{tag}[not(ancestor::article or ancestor::main)]"):
            one.drop_tree()
    return whole if text_of(whole) else body


def _main(tree: html.HtmlElement) -> html.HtmlElement | None:
    """Returns the main text that trafilatura finds; None where it finds none."""
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    for code in tree.xpath("//pre"):
        text = "".join(code.itertext()).strip("\n")
        code.clear(keep_tail=True)
        code.tag, code.text = "p", _hidden(f"```\n{text}\n```") if text.strip() else ""
    found = trafilatura.extract(
        tree, output_format="html", include_comments=False, include_tables=True, include_formatting=True,
        favor_recall=True,
    )  # fmt: skip
    return tree_of(found.encode("utf-8")) if found else None


def _hidden(text: str) -> str:
    for space, mark in _SPACES.items():
        text = text.replace(space, mark)
    return text


def _shown(text: str) -> str:
    for space, mark in _SPACES.items():
        text = text.replace(mark, space)
    return text
