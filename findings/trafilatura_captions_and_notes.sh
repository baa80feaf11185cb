#!/usr/bin/env bash
# trafilatura leaves out captions, notes in boxes and formulas, also where it is asked for recall
#
# Packages: trafilatura==2.3.1, lxml==6.1.3
# Guess:    With favor_recall=True the main text holds all text inside of <main> but menus.
# Seen:     A caption, a note in an <aside> and the letters of a formula are gone, without a message, while the
#           paragraphs around them are there: "The law is here."
# Matters:  Wikis keep warnings in such boxes and facts in captions; they are never learned, and nothing looks wrong.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet --upgrade pip
venv/bin/python -m pip install --quiet trafilatura==2.3.1 lxml==6.1.3
venv/bin/python - <<'PY'
from importlib.metadata import version

import trafilatura

prose = "<p>The {} pump of the north station was built in Bern in 1987, and it moves a lot of water every day.</p>"
parts = [
    "<aside><p>Open it slowly.</p></aside>",
    "<figure><img src='x.png'/><figcaption>The rotor of steel.</figcaption></figure>",
    "<p>The law is <math><mi>E</mi><mo>=</mo><mi>m</mi></math> here.</p>",
]
body = "".join(prose.format(n) + part for n, part in enumerate(parts)) + prose.format("last")
page = f"<html><head><title>Pumps</title></head><body><main><h1>Pumps</h1>{body}</main></body></html>"
text = trafilatura.extract(page, favor_recall=True)
print("trafilatura", version("trafilatura"))
print(text)
assert text.count("north station") == 4
for lost in ("Open it slowly", "The rotor of steel", "E=m"):
    assert lost not in text, lost
assert "The law is here." in text
PY
