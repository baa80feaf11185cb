"""What every test starts from: one seed, one thread, float32 on the CPU unless the environment says otherwise."""

import gc
import os
import random

import numpy as np
import pytest
import torch


def pytest_collection_finish() -> None:
    """Hides what is imported by now from the garbage collector: trainers call it, and it would look at all of torch."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def device() -> str:
    """Where models are put; `FOCI_TEST_DEVICE=cuda` runs the same tests on a GPU."""
    return os.environ.get("FOCI_TEST_DEVICE", "cpu")
