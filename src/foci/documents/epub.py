"""E-books (.epub): the chapters in the order of the book, each a web page inside of the archive."""

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from lxml import etree

from foci.documents.encodings import decoded
from foci.documents.markup import pieces_of_tree, tree_of
from foci.documents.pieces import Lost, Piece, Unreadable, check_archive

KIND = "an e-book (.epub)"
CONTAINER, LOCKS = "META-INF/container.xml", "META-INF/encryption.xml"


def pieces(path: Path) -> Iterator[Piece | Lost]:
    """Yields the headings, paragraphs, list items and tables of a book; `Lost` for chapters that are not there.

    Raises Unreadable for a file that is no e-book, a damaged one, or one that is locked.
    """
    check_archive(path, KIND, CONTAINER)
    try:
        with zipfile.ZipFile(path) as archive:
            if LOCKS in archive.namelist() and _locked(archive.read(LOCKS)):
                raise Unreadable("a locked e-book (with DRM), which only its shop's programs open; leave it out")
            for number, name in enumerate(_chapters(archive), start=1):
                yield from _chapter(archive, name, number)
    except (zipfile.BadZipFile, etree.XMLSyntaxError, KeyError) as error:
        raise Unreadable(f"a damaged e-book ({type(error).__name__}: {error}); get it again") from error


def _chapter(archive: zipfile.ZipFile, name: str, number: int) -> Iterator[Piece | Lost]:
    if name not in archive.namelist():
        yield Lost(f"chapter {number}", f"its file {name} is not in the e-book; get it again")
        return
    raw = archive.read(name)
    try:
        tree = tree_of(decoded(raw))
    except etree.ParserError:
        return
    body = tree.find("body")
    above = "" if tree.xpath("//h1|//h2|//h3|//h4|//h5|//h6") else f"chapter {number}"
    yield from pieces_of_tree(tree if body is None else body, above)


def _chapters(archive: zipfile.ZipFile) -> list[str]:
    """Returns the names of the chapters in their order, without the table of contents."""
    container = _tree(archive.read(CONTAINER))
    package = container.xpath("string(//*[local-name()='rootfile']/@full-path)")
    book = _tree(archive.read(package))
    items = {item.get("id"): item for item in book.iter("{*}item")}
    contents = {part.get("href") for part in book.iter("{*}reference") if part.get("type") == "toc"}  # EPUB 2
    names = []
    for reference in book.iter("{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split() or item.get("href") in contents:
            continue
        if "html" in (item.get("media-type") or ""):
            names.append(
                posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(item.get("href") or "")))
            )
    return names


def _tree(raw: bytes) -> etree._Element:
    return etree.fromstring(raw, parser=etree.XMLParser(resolve_entities=False, no_network=True))


def _locked(raw: bytes) -> bool:
    """Says whether more than fonts, which anybody may read, is encrypted."""
    kinds = _tree(raw).xpath("//*[local-name()='EncryptionMethod']/@Algorithm")
    return any("obfuscation" not in kind and "embedding" not in kind for kind in kinds)
