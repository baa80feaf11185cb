#!/usr/bin/env bash
# bm25s drops words of one character, and answers a query without words by the last documents
#
# Packages: bm25s==0.3.16
# Guess:    'grade C' and 'grade D' are told apart; a query of which nothing is known returns nothing or the first
#           documents.
# Seen:     The default tokenizer keeps words of two characters and more, and no stop words (so 'IT' is gone too).
#           'grade C' finds the document of grade D as well as its own, with equal scores. A query without any word left
#           returns documents with score 0, from the end of the corpus.
# Matters:  A passage shown under an answer as its source can be one that has nothing to do with it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet bm25s==0.3.16
venv/bin/python - <<'PY'
import logging
from importlib.metadata import version

import bm25s

logging.disable(logging.CRITICAL)
texts = ["Oil of grade C for the pump", "Oil of grade D for the valve", "Call the desk of IT", "Nothing", "Nothing else"]
index = bm25s.BM25()
index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)


def asked(query):
    found = index.retrieve(bm25s.tokenize(query, show_progress=False), k=2, show_progress=False)
    return found.documents[0].tolist(), [round(float(score), 4) for score in found.scores[0]]


print("bm25s", version("bm25s"), {query: asked(query) for query in ("grade D", "grade C", "IT")})
assert asked("grade C") == asked("grade D")
assert len(set(asked("grade C")[1])) == 1
assert asked("IT")[1] == [0.0, 0.0]
assert 2 not in asked("IT")[0]
PY
