#!/usr/bin/env bash
# tokenizers puts a space before every digit where ByteLevel or Metaspace comes behind Digits: 2024 comes back as 2 0 2 4
#
# Packages: tokenizers==0.23.3
# Guess:    add_prefix_space of ByteLevel, and Metaspace's own, put one space before the text, whatever was split before; with
#           the decoder of the same name the text comes back, up to that space.
# Seen:     Each piece that comes from the pre-tokenizer before gets a space of its own, also in the middle of a word. 'in 2024,
#           17.5 days' becomes 'in  2 0 2 4 ,  1 7 . 5 days', with Digits before ByteLevel or before Metaspace. With
#           Punctuation before ByteLevel 17.5 becomes '17 . 5'. ByteLevel(add_prefix_space=False), or Metaspace with
#           prepend_scheme="first", gives the text back. Nothing is said at training, where every digit is learned with a space.
# Matters:  Digits one by one is what one sets for arithmetic. A model that has learned all right writes '2 0 2 4', so that an
#           exact match of its numbers is 0, and so are commands, links and versions that are copied from an answer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet tokenizers==0.23.3
venv/bin/python - <<'PY'
from importlib.metadata import version

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

text = "in 2024, 17.5 days"
lines = [text, "x1y of 3 pumps", "the 6th of 8 in 90 days, 2.5 bar"] * 50


def back(*parts):
    """The text after encoding and decoding, the last of the parts has a decoder of the same name."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(parts))
    tokenizer.decoder = getattr(decoders, type(parts[-1]).__name__)()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet))
    return tokenizer.decode(tokenizer.encode(text).ids)


digits, punctuation = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()
byte, meta = pre_tokenizers.ByteLevel, pre_tokenizers.Metaspace
print("tokenizers", version("tokenizers"), repr(text))
seen = {
    "ByteLevel": back(byte()), "Digits, ByteLevel": back(digits, byte()), "Punctuation, ByteLevel": back(punctuation, byte()),
    "Digits, ByteLevel without": back(digits, byte(add_prefix_space=False)), "Metaspace": back(meta()),
    "Digits, Metaspace": back(digits, meta()), "Digits, Metaspace first": back(digits, meta(prepend_scheme="first")),
}
for name, said in seen.items():
    print(f"{name}: {said!r}")
for name in ("ByteLevel", "Digits, ByteLevel without", "Metaspace", "Digits, Metaspace first"):
    assert seen[name].removeprefix(" ") == text
for name in ("Digits, ByteLevel", "Digits, Metaspace"):
    assert seen[name].strip() == "in  2 0 2 4 ,  1 7 . 5 days"
assert "17 . 5" in seen["Punctuation, ByteLevel"]
PY
