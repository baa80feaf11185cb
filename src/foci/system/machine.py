"""The machine that a run is computed on, and the most memory that a part of the run takes."""

import contextlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch


def reset_peak() -> None:
    """Starts a new measurement of memory: of the GPU if there is one, else, on Linux, of this process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    clear = Path("/proc/self/clear_refs")
    with contextlib.suppress(OSError):  # not on Linux, or not allowed
        clear.write_text("5")


def peak_mib() -> float | None:
    """Returns the most memory since `reset_peak`, in MiB: allocated on the GPU, or resident on Linux; else None."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 2**10 if lines else None


PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "pyarrow")


def machine() -> dict[str, Any]:
    """Returns the system, the Python version, the device and the threads that a run is computed with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Returns the installed versions of the packages that a run's numbers depend on, by name."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
