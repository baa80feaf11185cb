#!/usr/bin/env bash
# A power of ten loses its superscript: 10 to the 6 becomes 106 in mammoth's Markdown
#
# Packages: mammoth==1.13.0, python-docx==1.2.0
# Guess:    10 with a superscript 6 comes out as 10^6, 10<sup>6</sup> or with the character for it.
# Seen:     mammoth's Markdown says '106' and its HTML '10<sup>6</sup>': the same reader, so only the Markdown writer
#           loses it, without a message.
# Matters:  A number learned from such a page is wrong by orders of magnitude, and nothing looks wrong.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet mammoth==1.13.0 python-docx==1.2.0
venv/bin/python - <<'PY'
from importlib.metadata import version

import docx
import mammoth

document = docx.Document()
paragraph = document.add_paragraph("The tank holds 10")
paragraph.add_run("6").font.superscript = True
paragraph.add_run(" litres.")
document.save("tank.docx")
with open("tank.docx", "rb") as file:
    markdown = mammoth.convert_to_markdown(file).value.strip()
with open("tank.docx", "rb") as file:
    html = mammoth.convert_to_html(file).value
print("mammoth", version("mammoth"), markdown, html)
assert markdown == "The tank holds 106 litres\\."
assert html == "<p>The tank holds 10<sup>6</sup> litres.</p>"
PY
