"""Two processes make the same updates as one, with weights, edits, a guide and a teacher; and one whole checkpoint."""

import json
import os
import subprocess
import sys

import pytest
import torch

import small
from foci.system import checkpoint
from paths import HELPERS
from training import model, trained, weights

METHODS = [small.Column(), small.Dropped(), small.LookTwoWays(), small.Imitating()]


def test_two_processes_are_a_larger_batch(tmp_path):
    script = HELPERS / "two_processes.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if torch.cuda.device_count() < 2:  # two processes of NCCL cannot share a device
        environment["CUDA_VISIBLE_DEVICES"] = ""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, losses = trained(
        tmp_path / "one", small.rows(12), METHODS, start=model(),
        per_device_train_batch_size=4, train_sampling_strategy="sequential", optim="sgd", learning_rate=0.1,
    )  # fmt: skip
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(losses, abs=2e-6)
    both = torch.load(tmp_path / "weights.pt", weights_only=True)
    for name, p in weights(one).items():
        torch.testing.assert_close(both[name], p, atol=2e-6, rtol=0)
    found, skipped = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert not skipped
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {p.name for p in found.iterdir()}
