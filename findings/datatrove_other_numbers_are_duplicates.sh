#!/usr/bin/env bash
# datatrove takes texts that differ in their numbers alone for duplicates: of ten data sheets one is left
#
# Packages: datatrove==0.10.1, spacy==3.8.18, xxhash==3.8.2, regex==2026.11.19, tokenizers==0.23.3
# Guess:    Deduplication of sentences drops spans of three sentences that are the same but for case and spaces. MinHash with its
#           words in fives drops pages that share most of these; two data sheets with another number in every clause share 1 %.
# Seen:     'The pump P8 runs at 35 bar. It holds 9.5 litres of oil. It was built in 2003.' is dropped as a duplicate of 'The
#           pump P7 runs at 50 bar. It holds 12 litres of oil. It was built in 1987.', and the next sentence stays alone. Of ten
#           data sheets of ten pumps MinHash keeps one. Both write each number as 0 before they compare (TextNormConfig, and
#           simplify_text in utils/text.py), and so do the Bloom filter and the n-gram decontamination. Other words are told
#           apart. The count of what was dropped is all that is said. With norm_config=TextNormConfig(norm_numbers=False) all
#           stay.
# Matters:  Handbooks, price lists, laws and reports have pages of one form with other numbers: these numbers are the
#           knowledge, and all but the first page of each form is gone before training.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet datatrove==0.10.1 spacy==3.8.18 xxhash==3.8.2 regex==2026.11.19 tokenizers==0.23.3
export TQDM_DISABLE=1
cat > shown.py <<'PY'
from importlib.metadata import version

from loguru import logger

from datatrove.data import Document
from datatrove.pipeline.dedup import (
    MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature, SentDedupConfig,
    SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups)
from datatrove.utils.text import TextNormConfig

logger.remove()
sheets = [
    f"Data sheet of pump P{number}. The pump runs at {31 + 7 * number} bar and needs {number + 2.5} litres of oil every "
    f"{number + 3} weeks. Its motor has {number + 1.5} kW and turns {900 + 50 * number} times a minute. It weighs "
    f"{200 + 11 * number} kg, was built in {1980 + number} and stands in hall {20 - number}." for number in range(1, 11)]
other = "The valve is made of brass. Nobody has its key but the desk. It is painted red, and a fan of the same make is near it."
notes = [
    "The pump P7 runs at 50 bar. It holds 12 litres of oil. It was built in 1987. Call the desk in Bern when it stops.",
    "The pump P8 runs at 35 bar. It holds 9.5 litres of oil. It was built in 2003. Ask in Rome before you open it.",
    "The fan P9 turns at 35 bar. It holds 9.5 kilos of sand. It was sold in 2003. Ask in Rome before you open it."]


def documents(texts):
    return [Document(text=text, id=str(number)) for number, text in enumerate(texts)]


def by_sentences(folder, texts, norm):
    config = SentDedupConfig(min_doc_words=1, min_num_sentences=1, norm_config=norm)
    SentenceDedupSignature(f"{folder}/signatures", config=config, finder_workers=1).run(documents(texts))
    SentenceFindDedups(f"{folder}/signatures", f"{folder}/found", config=config).run()
    return [document.text.strip() for document in SentenceDedupFilter(f"{folder}/found", config=config).run(documents(texts))]


def by_minhash(folder, texts, norm):
    config = MinhashConfig(norm_config=norm)
    MinhashDedupSignature(f"{folder}/signatures", config=config).run(documents(texts))
    for bucket in range(config.num_buckets):
        buckets = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
        buckets.run(rank=bucket, world_size=config.num_buckets)
    MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config).run()
    return [document.text for document in MinhashDedupFilter(f"{folder}/removed").run(documents(texts))]


def fives(text):
    words = text.lower().split()
    return set(zip(*(words[start:] for start in range(5))))


print("datatrove", version("datatrove"))
shared = len(fives(sheets[0]) & fives(sheets[1])) / len(fives(sheets[0]) | fives(sheets[1]))
print(f"two data sheets share {shared:.3f} of their words in fives")
assert shared < 0.03
for numbers in (True, False):
    norm = TextNormConfig() if numbers else TextNormConfig(norm_numbers=False)
    left = by_sentences(f"sentences_{numbers}", notes, norm)
    pages = by_minhash(f"minhash_{numbers}", [*sheets, other], norm)
    print("numbers written as 0:" if numbers else "norm_numbers=False:", left[1:], f"{len(pages)} of 11 pages")
    if numbers:
        assert left == [notes[0], "Ask in Rome before you open it.", notes[2]]
        assert pages == [sheets[0], other]
    else:
        assert left == notes and pages == [*sheets, other]
PY
venv/bin/python shown.py
