#!/usr/bin/env bash
# pySBD loses the text before a sign of astronomy or music
#
# Packages: pysbd==0.3.4
# Guess:    A sentence splitter puts ends between sentences; with clean=False the pieces joined are the text.
# Seen:     'The star has 5 M☉. It is hot.' gives ['. ', 'It is hot.']: all up to the sign of the Sun is gone, without a
#           word. The flat of music (♭) does the same, and so do ☄, ♬ and ☝: pySBD puts such signs into the text as
#           marks of its own. Other signs (☾, ♯) do no harm.
# Matters:  Texts on stars and on music lose their facts: the sentence with the number is the one that is not in the
#           corpus.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet pysbd==0.3.4
venv/bin/python - <<'PY'
from importlib.metadata import version

import pysbd

texts = {
    "☉": "The star has 5 M☉. It is hot.",
    "♭": "The piece is in B♭ major. It is short.",
    "☾": "The night has 5 h of ☾. It is cold.",
    "♯": "The piece is in F♯ minor. It is short.",
}
found = {sign: pysbd.Segmenter(language="en", clean=False).segment(text) for sign, text in texts.items()}
for sign, pieces in found.items():
    print("pysbd", version("pysbd"), repr(texts[sign]), "->", pieces)
assert found["☉"] == [". ", "It is hot."]
assert "B" not in "".join(found["♭"])
assert "".join(found["☾"]) == texts["☾"]
assert "".join(found["♯"]) == texts["♯"]
PY
