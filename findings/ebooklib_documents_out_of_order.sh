#!/usr/bin/env bash
# EbookLib gives the chapters of a book in the order of its list of files, not in that of reading
#
# Packages: ebooklib==0.20
# Guess:    get_items_of_type(ITEM_DOCUMENT), the loop of most examples, goes through a book from its beginning to its
#           end.
# Seen:     It goes through the manifest, which may list the files in any order; the order of reading is book.spine. A
#           book whose spine says one, two, three gives three, one, two, and the table of contents as a further
#           document.
# Matters:  Rows that go on from one chapter to the next, and held-out ends of books, are wrong: the model reads the end
#           first, and the headings of all chapters as a text of their own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet ebooklib==0.20
venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import ebooklib
from ebooklib import epub

book = epub.EpubBook()
book.set_identifier("book")
book.set_title("A book")
book.set_language("en")
names = ("one", "two", "three")
chapters = [epub.EpubHtml(title=name, file_name=f"{name}.xhtml", content=f"<p>{name}</p>") for name in names]
for chapter in (chapters[2], chapters[0], chapters[1], epub.EpubNcx(), epub.EpubNav()):
    book.add_item(chapter)
book.toc, book.spine = tuple(chapters), chapters
epub.write_epub("book.epub", book)
read = epub.read_epub("book.epub")
listed = [item.get_name() for item in read.get_items_of_type(ebooklib.ITEM_DOCUMENT)]
spine = [read.get_item_with_id(name).get_name() for name, _ in read.spine]
print("ebooklib", version("ebooklib"), "documents:", listed, "spine:", spine)
assert listed == ["three.xhtml", "one.xhtml", "two.xhtml", "nav.xhtml"]
assert spine == ["one.xhtml", "two.xhtml", "three.xhtml"]
PY
