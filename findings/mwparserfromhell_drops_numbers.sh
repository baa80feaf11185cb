#!/usr/bin/env bash
# mwparserfromhell's strip_code drops the numbers of {{convert}} and keeps 'thumb|right'
#
# Packages: mwparserfromhell==0.7.2
# Guess:    strip_code() of a wiki page gives what a reader sees of it: numbers in templates stay, the layout of a
#           picture goes.
# Seen:     Every template is dropped with its values, so 'The river is {{convert|5|km|mi}} long' says 'The river is
#           long', and a life without its dates; the options of a picture stay: 'thumb|right|A mill'. A note joins the
#           sentence before it without a space.
# Matters:  Numbers, units and dates are what one asks of such pages. Sentences without them are trained on, and 'thumb'
#           becomes a frequent word. keep_template_params=True gives '5 km mi' instead.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet mwparserfromhell==0.7.2
venv/bin/python - <<'PY'
from importlib.metadata import version

import mwparserfromhell

pages = {
    "The river is {{convert|5|km|mi}} long.": "The river is  long.",
    "[[File:Mill.jpg|thumb|right|A mill]]The mill is old.": "thumb|right|A millThe mill is old.",
    "It was built in {{circa|1800}}.<ref>Smith 1900</ref> It is old.": "It was built in .Smith 1900 It is old.",
}
for page, wanted in pages.items():
    said = mwparserfromhell.parse(page).strip_code()
    print("mwparserfromhell", version("mwparserfromhell"), repr(page), "->", repr(said))
    assert said == wanted
kept = mwparserfromhell.parse("The river is {{convert|5|km|mi}} long.").strip_code(keep_template_params=True)
print("with keep_template_params:", repr(kept))
assert kept == "The river is 5 km mi long."
PY
