#!/usr/bin/env bash
# safe_open(..., "pt") cannot open a file that is larger than the memory, not even to read its header
#
# Packages: safetensors==0.8.0, torch==2.13.0, numpy==2.3.5 (Linux with vm.overcommit_memory = 0, its default)
# Guess:    safe_open is lazy: it reads the header and then the tensors one is asked for, so that a file of any size opens.
# Seen:     With framework "pt" the whole file is mapped for private writing at once, which Linux refuses for more than
#           memory and swap together: RuntimeError "unable to mmap ... Cannot allocate memory", before any name or shape can
#           be read. Framework "np" opens the same file, but cannot give its bfloat16 tensors (TypeError). "pt" with
#           backend="pread" opens it and reads a tensor of 4 bytes.
# Matters:  A checkpoint in one large file, such as the shards of up to 50 GB that Transformers 5 writes, cannot be looked at
#           or read tensor by tensor on a smaller machine as one would expect; backend="pread" can.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet safetensors==0.8.0 torch==2.13.0 numpy==2.3.5
cat > shown.py <<'PY'
import json
import struct

import safetensors
import torch
from safetensors import safe_open

assert open("/proc/sys/vm/overcommit_memory").read().strip() == "0", "shown with Linux's default alone"
known = dict(line.split(":") for line in open("/proc/meminfo"))
memory = sum(int(known[name].split()[0]) for name in ("MemTotal", "SwapTotal")) * 1024
large = (memory + 2**32) // 4 * 4
header = {
    "large": {"dtype": "BF16", "shape": [large // 2], "data_offsets": [0, large]},
    "small": {"dtype": "BF16", "shape": [2], "data_offsets": [large, large + 4]},
}
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open("model.safetensors", "wb") as file:  # a file with a hole: it takes no space
    file.write(struct.pack("<Q", len(text)) + text)
    file.truncate(8 + len(text) + large)
    file.seek(0, 2)
    file.write(struct.pack("<HH", 0x3F80, 0x4000))  # 1 and 2 in bfloat16

print("safetensors", safetensors.__version__, "torch", torch.__version__, f"file / memory {large / memory:.2f}")
try:
    safe_open("model.safetensors", "pt")
except RuntimeError as error:
    print("pt:", str(error).split(">:")[-1].strip())
    assert "Cannot allocate memory" in str(error)
else:
    raise AssertionError("it opens now")
with safe_open("model.safetensors", "np") as tensors:
    print("np:", tensors.get_slice("large").get_dtype(), tensors.get_slice("small").get_shape())
    assert tensors.get_slice("small").get_dtype() == "BF16"
    try:
        tensors.get_tensor("small")
    except TypeError as error:
        print("np:", error)
    else:
        raise AssertionError("numpy has bfloat16 now")
with safe_open("model.safetensors", "pt", backend="pread") as tensors:
    print("pt, pread:", tensors.get_tensor("small"))
    assert tensors.get_tensor("small").tolist() == [1.0, 2.0]
PY
venv/bin/python shown.py
