#!/usr/bin/env bash
# syntok's sentences, joined as its README joins them, say 'canot' and 'donot'
#
# Packages: syntok==1.4.4
# Guess:    Each token has its spacing and its value, so ''.join(token.spacing + token.value) gives the sentence back,
#           or writes 'can not'.
# Seen:     'can't' and 'don't' become 'canot' and 'donot': the end n't is replaced by the word not, which has no
#           spacing of its own (the README names the replacement, not the missing space); 'won't' becomes 'wonot', and
#           'he'll' stays.
# Matters:  A corpus that is split into sentences so teaches words that do not exist, wherever people are quoted.
#           Tokenizer(replace_not_contraction=False) keeps the words.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet syntok==1.4.4
venv/bin/python - <<'PY'
from importlib.metadata import version

from syntok import segmenter
from syntok.tokenizer import Tokenizer

text = "We don't know. It can't be, and it won't be; he'll go."


def joined(sentences):
    return "".join("".join(token.spacing + token.value for token in sentence) for sentence in sentences)


default = joined(sentence for paragraph in segmenter.process(text) for sentence in paragraph)
kept = joined(segmenter.segment(Tokenizer(replace_not_contraction=False).tokenize(text)))
print("syntok", version("syntok"), repr(default), "with replace_not_contraction=False:", repr(kept))
assert default == "We donot know. It canot be, and it wonot be; he'll go."
assert kept == text
PY
