#!/usr/bin/env bash
# LangChain's HTMLHeaderTextSplitter takes bold words and links out of their sentence and puts them behind it
#
# Packages: langchain-text-splitters==1.1.3, beautifulsoup4==4.15.0
# Guess:    A chunk is the text below a heading, in the order in which it is read.
# Seen:     Of each element the text that stands directly in it comes first, joined by spaces, and then its inner elements:
#           'Take <b>5</b> mg, not <b>50</b> mg.' becomes 'Take mg, not mg.', '5', '50' on three lines, 'The valve is
#           <em>not</em> open.' becomes 'The valve is open.', 'not', and H<sub>2</sub>O 'H O', '2'. Text after a list moves
#           before it. No word is lost, so a check that counts them finds nothing. With return_each_element=True 'The valve is
#           open.' is a document of its own.
# Matters:  What is bold is what matters on a page: numbers and 'not'. The corpus or the passage that is found says the
#           opposite of the page. (html.py: _generate_documents)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet langchain-text-splitters==1.1.3 beautifulsoup4==4.15.0
venv/bin/python - <<'PY'
from importlib.metadata import version

from bs4 import BeautifulSoup
from langchain_text_splitters import HTMLHeaderTextSplitter

print("langchain-text-splitters", version("langchain-text-splitters"))


def chunks(part, **more):
    page = f"<html><body><h1>Title</h1>{part}</body></html>"
    found = HTMLHeaderTextSplitter([("h1", "title")], **more).split_text(page)
    assert found[0].page_content == "Title"
    return [document.page_content.split("  \n") for document in found[1:]]


for part, lines in (
    ("<p>Take <b>5</b> mg, not <b>50</b> mg.</p>", ["Take mg, not mg.", "5", "50"]),
    ("<p>The valve is <em>not</em> open.</p>", ["The valve is open.", "not"]),
    ("<p>Ask <a href='/x'>the office</a> before you <code>delete</code> a file.</p>",
     ["Ask before you a file.", "the office", "delete"]),
    ("<p>Water is H<sub>2</sub>O.</p>", ["Water is H O.", "2"]),
    ("<div>Before the list<ul><li>one</li></ul>after the list</div>", ["Before the list after the list", "one"]),
):
    said = chunks(part)
    print(repr(BeautifulSoup(part, "html.parser").get_text()), "->", said)
    assert said == [lines]
assert chunks("<p>The valve is closed.</p><p>It is red.</p>") == [["The valve is closed.", "It is red."]]
assert chunks("<p>The valve is <em>not</em> open.</p>", return_each_element=True) == [["The valve is open."], ["not"]]
PY
