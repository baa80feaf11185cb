#!/usr/bin/env bash
# markitdown turns text cells of an .xlsx into numbers and into NaN, and leaves a .csv alone
#
# Packages: markitdown[xlsx]==0.1.9, openpyxl==3.1.5, pandas==3.1.1
# Guess:    A cell that holds the text '007', 'NA' or 'None' comes out as it is; openpyxl wrote it as text.
# Seen:     '007' becomes 7.0 where another cell of its column is empty or 'N/A'; a count 12 becomes 12.0; 'NA' and
#           'None' become NaN. The same table as .csv comes out unchanged.
# Matters:  Part numbers and codes are what a handbook is asked for. They are wrong before training begins.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet markitdown[xlsx]==0.1.9 openpyxl==3.1.5 pandas==3.1.1
venv/bin/python - <<'PY'
from importlib.metadata import version

import openpyxl
from markitdown import MarkItDown

rows = [["Part", "Count", "Code"], ["Bolt", 12, "007"], ["NA", None, "N/A"]]
book = openpyxl.Workbook()
for row in rows:
    book.active.append(row)
book.save("parts.xlsx")
with open("parts.csv", "w") as file:
    file.writelines(",".join("" if cell is None else str(cell) for cell in row) + "\n" for row in rows)
sheet = MarkItDown().convert("parts.xlsx").text_content
plain = MarkItDown().convert("parts.csv").text_content
print("markitdown", version("markitdown"))
print(sheet)
print(plain)
assert "| Bolt | 12.0 | 7.0 |" in sheet
assert "| NaN | NaN | NaN |" in sheet
assert "| Bolt | 12 | 007 |" in plain
assert "| NA |  | N/A |" in plain
PY
