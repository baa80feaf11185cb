#!/usr/bin/env bash
# resiliparse leaves out every bulleted list of a simple page, and keeps it where three more boxes stand around it
#
# Packages: resiliparse==2.0.1
# Guess:    extract_plain_text(html, main_content=True) takes away menus, footers and lists of links; a list of sentences between
#           two paragraphs of an article stays, and a <div> around the text changes nothing.
# Seen:     <ul> is gone whenever fewer than three elements stand between it and <body>: on a page of paragraphs and lists
#           alone (what Markdown and pandoc write), in <article>, in <main><article>. It does not matter how long the list is, nor
#           that the tags say main and article. The same list in <ol> stays, and with more <div> around the same page all stays.
#           With main_content=False it stays. Beside it, <ol start="5"> is numbered from 1. Nothing is said.
# Matters:  Rules, parts and warnings of hand-written pages, manuals and converted READMEs stand in such lists. A corpus made of
#           them lacks just those, "Before you open it:" is followed by nothing, and a test page with a site's many boxes shows
#           no fault. (extract_plain_text in resiliparse/extract, compiled: it looks at how deep a <ul> stands)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet resiliparse==2.0.1
venv/bin/python - <<'PY'
from importlib.metadata import version

from resiliparse.extract.html2text import extract_plain_text

sentence = "The pump P7 moves water from the tank to the boiler, runs at 50 bar, and needs oil of grade C every week."
items = ["Close the red valve on the left side of the boiler.", "Stop the pump and wait ten minutes, until the light is off."]


def page(tag, boxes, number=1):
    listed = "".join(f"<li>{item}</li>" for item in items * number)
    inner = f"<h1>The pump</h1><p>{sentence}</p><p>Before you open it:</p><{tag}>{listed}</{tag}><p>{sentence}</p>"
    for box in reversed(boxes):
        inner = f"<{box}>{inner}</{box}>"
    return f"<html><head><title>The pump</title></head><body>{inner}</body></html>"


def kept(tag, boxes, main_content=True, number=1):
    text = extract_plain_text(page(tag, boxes, number), main_content=main_content)
    assert text.count(sentence) == 2 and "Before you open it:" in text
    found = [item in text for item in items]
    assert len(set(found)) == 1
    return found[0]


print("resiliparse", version("resiliparse"))
simple = ([], ["article"], ["div"], ["main", "article"], ["div", "div"], ["main", "section"])
deeper = (["div", "div", "div"], ["main", "div", "article"], ["main", "article", "div"])
for boxes in (*simple, *deeper):
    row = {"ul": kept("ul", boxes), "ul of 40": kept("ul", boxes, number=20), "ol": kept("ol", boxes),
           "ul, main_content=False": kept("ul", boxes, False)}
    print("body", *boxes, row)
    expected = boxes in deeper
    assert row == {"ul": expected, "ul of 40": expected, "ol": True, "ul, main_content=False": True}
print(extract_plain_text(page("ul", ["main", "article"]), main_content=True))
numbered = page("ol start='5'", ["div"] * 3).replace("</ol start='5'>", "</ol>")
assert "1. Close" in extract_plain_text(numbered) and "5. Close" not in extract_plain_text(numbered)
PY
