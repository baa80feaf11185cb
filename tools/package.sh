#!/usr/bin/env bash
# Builds the sdist and the wheel, installs the wheel into a fresh environment, and tries there what a user types and a
# quick part of the sdist's own tests. `make package` calls it with a Python and what to install as torch.
set -euo pipefail
cd "$(dirname "$0")/.."
builder=$PWD/.venv/bin/python
constraints=$PWD/constraints.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$builder" -m hatchling build --directory "$work/dist"
"$1" -m venv "$work/venv"
install=("$work/venv/bin/python" -m pip install --quiet --no-compile --constraint "$constraints")
read -ra torch <<<"$2"
"${install[@]}" "${torch[@]}"
wheel=("$work"/dist/foci-*.whl)
"${install[@]}" "${wheel[0]}[test]"
tar -xzf "$work"/dist/foci-*.tar.gz -C "$work"
cd "$work"/foci-*/

PATH=$work/venv/bin:$PATH
foci --version
foci methods >"$work/methods.txt"
PYTHONPATH=tests/helpers python -W ignore -c 'import sys, pathlib, tiny; tiny.save_model(pathlib.Path(sys.argv[1]))' "$work/tiny"
foci data biographies --people 2 --texts 1 --out "$work/people"
foci learn --corpus "$work/people/corpus.jsonl" --model "$work/tiny" --out "$work/run" \
  train.epochs=1 corpus.max_length=64 'arms={plain: []}' >"$work/learn.txt"
test -s "$work/run/report.html"
python -c 'import sys, foci; sys.exit("site-packages" not in foci.__file__ and f"not the wheel: {foci.__file__}")'
python -m pytest -q tests/config tests/project/test_packaging.py tests/project/test_style.py tests/models/test_losses.py
