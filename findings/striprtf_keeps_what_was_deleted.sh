#!/usr/bin/env bash
# striprtf gives the text that was deleted, and drops the footnotes
#
# Packages: striprtf==0.0.35
# Guess:    The text of an RTF file is what a reader sees: no hidden text, nothing that a tracked change deleted, and
#           the footnotes somewhere.
# Seen:     Text that a tracked change deleted ({\deleted ...}) and hidden text ({\v ...}) come out as if they were part
#           of the sentence; the text of a footnote is gone, and its mark too. 10 with a superscript 6 is '106'.
# Matters:  An old price that somebody struck out stands in the corpus beside the new one, as if both were true; notes
#           with the sources are not there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet striprtf==0.0.35
venv/bin/python - <<'PY'
from importlib.metadata import version

from striprtf.striprtf import rtf_to_text

document = r"""{\rtf1\ansi The oil costs {\deleted 70}{\revised 90} francs{\footnote As of May.}{\v  (do not print)}.\par}"""
said = rtf_to_text(document)
print("striprtf", version("striprtf"), repr(said))
assert said == "The oil costs 7090 francs (do not print).\n"
assert rtf_to_text(r"{\rtf1\ansi 10{\super 6} cells\par}") == "106 cells\n"
PY
