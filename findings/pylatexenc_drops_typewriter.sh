#!/usr/bin/env bash
# pylatexenc leaves out \texttt and \verb, and writes a range of 10 to 20 as 1020
#
# Packages: pylatexenc==2.11
# Guess:    LatexNodes2Text keeps the words of a LaTeX text: fonts go, text stays, and a range is two numbers.
# Seen:     'Run \texttt{foci learn} now.' gives 'Run  now.', without a word of warning; \textsf and \verb lose their
#           text too, \textbf and \textsc keep it. '\SIrange{10}{20}{\metre}' of siunitx gives '1020', and
#           '\SI{5}{\kilo\gram}' '5': the two ends stand without anything between them, the unit is gone. \href with a
#           link and a text raises IndexError.
# Matters:  Papers and manuals are taught without their commands and file names, and with numbers that they never say.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet pylatexenc==2.11
venv/bin/python - <<'PY'
from importlib.metadata import version

from pylatexenc.latex2text import LatexNodes2Text

expected = {
    r"Run \texttt{foci learn} now.": "Run  now.",
    r"Call \verb|fit| first.": "Call  first.",
    r"Press \textsf{Start} here.": "Press  here.",
    r"A \textbf{bold} and \textsc{Small} word.": "A bold and Small word.",
    r"It is \SIrange{10}{20}{\metre} high.": "It is 1020 high.",
    r"It weighs \SI{5}{\kilo\gram}.": "It weighs 5.",
}
for latex, text in expected.items():
    found = LatexNodes2Text().latex_to_text(latex)
    print("pylatexenc", version("pylatexenc"), repr(latex), "->", repr(found))
    assert found == text, found
try:
    LatexNodes2Text().latex_to_text(r"See \href{http://example.org}{this page}.")
except IndexError as error:
    print(r"\href:", type(error).__name__, error)
else:
    raise SystemExit(r"\href is read now")
PY
