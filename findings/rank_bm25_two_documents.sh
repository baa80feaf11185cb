#!/usr/bin/env bash
# rank_bm25 gives score 0 to a word that stands in one of two documents
#
# Packages: rank-bm25==0.2.2
# Guess:    The document that holds the word scores above 0, the other one 0.
# Seen:     Both score 0: the inverse document frequency log((N - n + .5) / (n + .5)) is 0 where n is half of N.
#           In three documents the same word scores above 0.
# Matters:  Of a small corpus, or one of two pages, the passage that answers is not found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet rank-bm25==0.2.2
venv/bin/python - <<'PY'
from importlib.metadata import version

from rank_bm25 import BM25Okapi

two = [["the", "pump", "is", "red"], ["the", "valve", "is", "blue"]]
of_two = BM25Okapi(two).get_scores(["pump"]).tolist()
of_three = BM25Okapi([*two, ["nothing", "else"]]).get_scores(["pump"]).tolist()
print("rank-bm25", version("rank-bm25"), of_two, of_three)
assert of_two == [0.0, 0.0]
assert of_three[0] > of_three[1] == 0.0
PY
