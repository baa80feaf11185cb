#!/usr/bin/env bash
# nltk's corpus_bleu gives answers that are all right less than 1 where some have fewer than four words
#
# Packages: nltk==3.10.4, sacrebleu==2.6.0
# Guess:    Answers that are word for word the references have a BLEU of 1 over the corpus, as long as one of them has four
#           words. Answers of one word add nothing to the pairs, triples and fours of words; they have none.
# Seen:     Seven right answers, five of them with one to three words: .866, and sacrebleu says 1. One long answer and 30 right
#           answers of one word: .310. Smoothing does not help (method1 .866, method2 .873). modified_precision in
#           bleu_score.py counts one pair, triple and four at least in every answer, so that a short one adds to what could
#           have been right, and never to what was. On answers of four words and more both agree. No warning.
# Matters:  Questions on somebody's own pages have short answers. The score falls with the share of them, not with the errors,
#           and numbers of nltk cannot be set beside those of sacrebleu or of the paper.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet nltk==3.10.4 sacrebleu==2.6.0
venv/bin/python - <<'PY'
from importlib.metadata import version

import sacrebleu
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu


def by_nltk(said, wanted, smoothing=None):
    split = [x.split() for x in said]
    return corpus_bleu([[x.split()] for x in wanted], split, smoothing_function=smoothing)


def by_sacrebleu(said, wanted):
    return sacrebleu.corpus_bleu(said, [wanted], tokenize="none", smooth_method="none").score / 100


print("nltk", version("nltk"), "sacrebleu", version("sacrebleu"))
long = ["it was built in the year 1990 by two brothers", "turn the valve to the left until it stops"]
mixed = [*long, "Paris", "the red pump", "no", "12 bar", "the second floor"]
words = [long[0], *(["Paris"] * 30)]
changed = [long[0], "turn the valve to the right until it stops"]
seen = {}
for name, said, wanted in (
    ("seven right answers", mixed, mixed), ("one long, 30 of one word, all right", words, words),
    ("two long, one word wrong", changed, long),
):
    seen[name] = by_nltk(said, wanted), by_sacrebleu(said, wanted)
    print(f"{name}: nltk {seen[name][0]:.3f}, sacrebleu {seen[name][1]:.3f}")
smooth = [by_nltk(mixed, mixed, getattr(SmoothingFunction(), name)) for name in ("method1", "method2")]
print("seven right answers, smoothed:", [round(x, 3) for x in smooth])
first, second, third = seen.values()
assert abs(first[1] - 1) < 1e-9 and abs(second[1] - 1) < 1e-9
assert abs(first[0] - 0.866) < 1e-3 and abs(second[0] - 0.310) < 1e-3
assert max(smooth) < 0.9
assert abs(third[0] - third[1]) < 1e-9 and third[0] < 0.9
PY
