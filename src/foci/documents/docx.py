"""Word documents (.docx), read by mammoth as HTML. Headers and footers of pages are left out, deleted text too."""

from collections.abc import Iterator
from pathlib import Path

import mammoth

from foci.documents.docx_lean import lean, with_numbers
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
        images = mammoth.images.img_element(lambda _: {})
        made = mammoth.convert_to_html(lean(path), style_map=STYLES, convert_image=images)
    except Exception as error:
        raise Unreadable(
            f"a damaged Word document ({type(error).__name__}: {error}); open it and save it again"
        ) from error
    if any("oMath" in message.message for message in made.messages):
        yield Lost("", "its equations; save it as PDF, or write them as text")
    if made.value.strip():
        yield from pieces_of_tree(with_numbers(tree_of(made.value)))
