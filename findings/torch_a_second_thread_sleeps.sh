#!/usr/bin/env bash
# A model that answers in another thread than the one that loaded it: its processor threads sleep after every product
#
# Packages: torch==2.13.0 (the CPU build for Linux, which brings libgomp)
# Guess:    Which thread of Python computes does not matter, as long as one computes at a time.
# Seen:     Each thread that has computed keeps processor threads of its own. Once there are more of them than
#           processors, they no longer wait for the next product but sleep: 4,000 products are over 10,000 sleeps, where
#           the first thread alone has none. A token of a small model in bfloat16 took 110 ms in place of 67 ms on 2 cores.
#           When the second thread has ended, the first is as quick as before.
# Matters:  Servers and streaming load a model in the main thread and generate in a worker (a streamer of Transformers'
#           generate is made for that). Load and generate in one thread.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 numpy
env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT venv/bin/python - <<'PY'
import resource
from concurrent.futures import ThreadPoolExecutor

import torch

weights, x = [torch.randn(1536, 576) for _ in range(40)], torch.randn(2, 576)


def sleeps(rounds=100):
    """Times that this process gave up its processor by itself, in 40 products a round."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(rounds):
        for weight in weights:
            torch.nn.functional.linear(x, weight)
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before


sleeps(5)
alone = sleeps()
with ThreadPoolExecutor(1) as other:
    other.submit(sleeps, 5).result()
    second = other.submit(sleeps).result()
    first = sleeps()
after = sleeps()
print("torch", torch.__version__, torch.get_num_threads(), "threads")
print(f"sleeps in 4,000 products: first thread alone {alone}, second {second}, first beside it {first}, after it {after}")
assert torch.get_num_threads() > 1, "one processor: nothing to see"
assert alone < 1000 and after < 1000
assert second > 2000
PY
