#!/usr/bin/env bash
# datasets.Dataset.from_list keeps the keys of the first row and drops all others
#
# Packages: datasets==5.2.0
# Guess:    Keys of later rows become columns, None where a row lacks them, as load_dataset('json') does.
# Seen:     A key that the first row lacks is gone, in every row, without a word. The same rows read from a .jsonl file
#           keep it.
# Matters:  Answer spans or labels that only some rows have are lost where the first row has none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet datasets==5.2.0
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'PY'
import json

from datasets import Dataset, __version__, load_dataset

rows = [{"text": "a"}, {"text": "b", "answer": "x"}]
made = Dataset.from_list(rows)
with open("rows.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
read = load_dataset("json", data_files="rows.jsonl", split="train", cache_dir="cache")
print("datasets", __version__, made.column_names, read.column_names)
assert made.column_names == ["text"]
assert read.column_names == ["text", "answer"]
PY
