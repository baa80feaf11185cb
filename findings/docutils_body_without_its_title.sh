#!/usr/bin/env bash
# docutils leaves the title of a reStructuredText page out of its body, unless the page has two
#
# Packages: docutils==0.23
# Guess:    publish_parts(...)['body'] holds all that is written on the page; its title is a heading in it.
# Seen:     Where a page begins with its only top heading, that heading is taken for the document's title and is not in
#           'body', and a single second heading is taken for the subtitle and is gone too. With two top headings both
#           stay. 'html_body' has them all, and so has 'body' with doctitle_xform=False.
# Matters:  In documentation each page has one title, which names what its sentences are about ('The pump P7'): all
#           pages lose just that line, and a test page with two headings shows nothing of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet docutils==0.23
venv/bin/python - <<'PY'
from docutils import __version__
from docutils.core import publish_parts

one = "The pump P7\n===========\n\nSafety\n------\n\nIt runs at 5 bar.\n"
two = one + "\nThe pump P8\n===========\n\nIt runs at 6 bar.\n"


def part(text, name, **settings):
    return publish_parts(text, writer="html5", settings_overrides=settings)[name]


shown = {
    "one, body": part(one, "body"),
    "two, body": part(two, "body"),
    "one, html_body": part(one, "html_body"),
    "one, body, doctitle_xform=False": part(one, "body", doctitle_xform=False),
}
found = {name: [word for word in ("P7", "Safety", "5 bar") if word in html] for name, html in shown.items()}
print("docutils", __version__, found)
assert found["one, body"] == ["5 bar"]
assert all(words == ["P7", "Safety", "5 bar"] for name, words in found.items() if name != "one, body")
PY
