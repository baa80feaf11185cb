#!/usr/bin/env bash
# bibtexparser 1 leaves out @online, @software, @dataset, @report and @thesis
#
# Packages: bibtexparser==1.4.4
# Guess:    A reader of .bib files returns every entry, whatever its type is called.
# Seen:     Of six entries one comes back. Types that BibTeX of 1988 did not have are left out (biblatex has them all), and
#           the only sign is a line of the logging module. No error is raised and no warning is given.
#           BibTexParser(ignore_nonstandard_types=False) returns all six.
# Matters:  Whoever teaches a model the references of a field loses its web pages, software and data, and the count of
#           what was read does not say so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet bibtexparser==1.4.4
venv/bin/python - <<'PY'
import warnings
from importlib.metadata import version

import bibtexparser
from bibtexparser.bparser import BibTexParser

warnings.simplefilter("error")
kinds = ["article", "online", "software", "dataset", "report", "thesis"]
text = "".join(f"@{kind}{{{kind}2024, title={{A title}}, year={{2024}}}}\n" for kind in kinds)
found = [entry["ENTRYTYPE"] for entry in bibtexparser.loads(text).entries]
print("bibtexparser", version("bibtexparser"), kinds, "->", found)
assert found == ["article"], found
everything = bibtexparser.loads(text, parser=BibTexParser(ignore_nonstandard_types=False)).entries
assert [entry["ENTRYTYPE"] for entry in everything] == kinds
PY
