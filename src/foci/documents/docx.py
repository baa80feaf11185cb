"""Word documents (.docx), read by mammoth as HTML. Headers and footers of pages are left out, deleted text too."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mammoth
from lxml import etree

from foci.documents.markup import pieces_of_tree, tree_of
from foci.documents.pieces import Lost, Piece, Unreadable, check_archive

KIND = "a Word document (.docx)"
STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def pieces(path: Path) -> Iterator[Piece | Lost]:
    """Yields the headings, paragraphs, list items and tables of a document; `Lost` where it has equations.

    Raises Unreadable for a file that is no Word document, or a damaged one.
    """
    check_archive(path, KIND, "word/document.xml")
    try:
        lean = _lean(path)
        made = mammoth.convert_to_html(lean, style_map=STYLES, convert_image=mammoth.images.img_element(lambda _: {}))
    except Exception as error:
        raise Unreadable(
            f"a damaged Word document ({type(error).__name__}: {error}); open it and save it again"
        ) from error
    if any("oMath" in message.message for message in made.messages):
        yield Lost("", "its equations; save it as PDF, or write them as text")
    if made.value.strip():
        yield from pieces_of_tree(tree_of(made.value))


def _lean(path: Path) -> io.BytesIO:
    """Returns a document without its pictures and without the looks of its styles, which most of the time goes into.

    Kept of a style is its name, by which headings are known, and its numbering.
    """
    lean = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(lean, "w") as copy:
        for name in archive.namelist():
            if name == "word/styles.xml":
                copy.writestr(name, _named(archive.read(name)))
            elif name.endswith((".xml", ".rels")):
                copy.writestr(name, archive.read(name))
    return lean


def _named(raw: bytes) -> bytes:
    tree = etree.fromstring(raw, parser=etree.XMLParser(resolve_entities=False, no_network=True))
    for part in tree.xpath("//*[local-name()='latentStyles' or local-name()='docDefaults']"):
        part.getparent().remove(part)
    for style in tree.iter("{*}style"):
        for part in list(style):
            if not part.xpath("self::*[local-name()='name'] | .//*[local-name()='numPr']"):
                style.remove(part)
    return etree.tostring(tree)
