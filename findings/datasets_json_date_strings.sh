#!/usr/bin/env bash
# datasets reads a JSON string that looks like a date as a timestamp
#
# Packages: datasets==5.2.0
# Guess:    A quoted string of a .jsonl file is a string.
# Seen:     A column whose strings all look like dates becomes timestamp[s], and its values datetime objects. One value
#           that is no date keeps the whole column text. CSV is the other way round: "2024-03-01" stays text there.
# Matters:  Answers that are dates come back as '2024-03-01 00:00:00', and whether they do hangs on the other rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet datasets==5.2.0
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'PY'
from datasets import __version__, load_dataset


def read(name, text):
    with open(name, "w") as file:
        file.write(text)
    kind = "csv" if name.endswith("csv") else "json"
    rows = load_dataset(kind, data_files=name, split="train", cache_dir="cache")
    return str(rows.features["answer"].dtype), rows[0]["answer"]


dates = read("dates.jsonl", '{"answer": "2024-03-01"}\n{"answer": "2024-03-02"}\n')
mixed = read("mixed.jsonl", '{"answer": "2024-03-01"}\n{"answer": "in spring"}\n')
comma = read("dates.csv", "answer\n2024-03-01\n2024-03-02\n")
print("datasets", __version__, dates, mixed, comma)
assert dates[0] == "timestamp[s]"
assert not isinstance(dates[1], str)
assert mixed == ("string", "2024-03-01")
assert comma[1] == "2024-03-01"
PY
