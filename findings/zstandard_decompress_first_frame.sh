#!/usr/bin/env bash
# zstandard.decompress gives the first frame of a .zst file and drops the rest
#
# Packages: zstandard==0.25.0
# Guess:    `ZstdDecompressor().decompress(data)` gives all of the data, as `zstd -d` and `zstandard.open` do.
# Seen:     Of a file made of two frames, as appending or parallel compression makes it, it returns the first frame's
#           bytes. No error, no warning. `zstandard.open` and `stream_reader` return both.
# Matters:  A .jsonl.zst corpus that was written in parts loses all rows but the first part's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet zstandard==0.25.0
venv/bin/python - <<'PY'
import io

import zstandard

rows = [b'{"text": "one"}\n', b'{"text": "two"}\n']
data = b"".join(zstandard.compress(row) for row in rows)
whole = zstandard.ZstdDecompressor().decompress(data)
streamed = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
with zstandard.open(io.BytesIO(data), "rb") as file:
    opened = file.read()
print("zstandard", zstandard.__version__, "decompress:", whole, "stream_reader:", streamed)
assert whole == rows[0]
assert streamed == opened == b"".join(rows)
PY
