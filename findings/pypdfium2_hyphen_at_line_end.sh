#!/usr/bin/env bash
# pypdfium2 replaces a hyphen at a line's end by U+FFFE and joins the lines
#
# Packages: pypdfium2==5.15.2, reportlab==5.1.0
# Guess:    The text has '-' and a line break, as pypdf and pdfminer give it.
# Seen:     The character U+FFFE stands for hyphen and line break together, for a divided word and for a real hyphen
#           ('well-known') alike. U+FFFE is no character by Unicode's rules; tokenizers turn it into junk tokens.
# Matters:  A word that a line divides is learned with a character that no question has, and a repair that looks for
#           '-' and a line break finds nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet pypdfium2==5.15.2 reportlab==5.1.0
venv/bin/python - <<'PY'
import pypdfium2
from importlib.metadata import version
from reportlab.pdfgen import canvas

page = canvas.Canvas("page.pdf")
for number, line in enumerate(["The instru-", "ment is well-", "known."]):
    page.drawString(72, 800 - 14 * number, line)
page.save()
text = pypdfium2.PdfDocument("page.pdf")[0].get_textpage().get_text_range()
print("pypdfium2", version("pypdfium2"), repr(text))
assert text == "The instru\ufffement is well\ufffeknown."
PY
