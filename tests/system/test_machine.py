"""The peak of memory: what was resident for a moment is seen, and the system's own mark is left as it was."""

import mmap
import time
from pathlib import Path

import pytest
import torch

from foci.system import machine

ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system keeps no mark here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="memory is a GPU's")
def test_a_peak_is_that_of_its_time():
    size = 40 * 2**20  # mapped by itself: a tensor of it may lie in memory that the process holds already, and stays
    with machine.Peak() as first, mmap.mmap(-1, size) as block:
        block.write(b"1" * size)
        time.sleep(
            50 * machine.Peak.INTERVAL
        )  # on a busy machine too; where the process was larger before, the system's mark does not rise
    with machine.Peak() as second:
        torch.ones(2**10)
    assert first.bytes >= machine.held_bytes()
    assert first.bytes - second.bytes > size // 2


@ON_LINUX
@pytest.mark.skipif(torch.cuda.is_available(), reason="memory is a GPU's")
def test_a_peak_from_outside_stays_right():
    torch.ones(60 * 2**18)
    before = machine.peak_mib()
    with machine.Peak():
        torch.ones(2**10)
    assert machine.peak_mib() >= before
