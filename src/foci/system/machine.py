"""The machine that a run is computed on, and the most memory that a part of the run takes."""

import contextlib
import ctypes
import gc
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import psutil
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


def release_memory() -> None:
    """Gives the system back what is not used any more: objects that hold each other, and memory that was freed.

    A trainer and its model are such objects. The C library of Linux (glibc) keeps most of what tensors have freed, a
    gigabyte after some updates, until it is told (`malloc_trim`).
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device) -> int | None:
    """Returns the bytes that a process can still take on a device, or of the machine's memory on a CPU; else None.

    A limit on the process' control group counts too (cgroup v2, as containers have).
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    return min([int(psutil.virtual_memory().available), *_free_in_groups()])


def _free_in_groups(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Returns what is left of the limit on this process' control group, in bytes; cached files count as free."""
    found = []
    for folder in (root, *_own_group(root)):
        try:
            limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        if limit != "max":
            found.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    return found


def _own_group(root: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        name = Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
        return [root / name] if name else []
    return []


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
