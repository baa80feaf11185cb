"""The machine that a run is computed on, and the most memory that a part of the run takes."""

import contextlib
import ctypes
import gc
import importlib.metadata
import platform
import threading
from pathlib import Path
from typing import Any

import psutil
import torch


class Peak:
    """The most memory since it was made: allocated on the GPU if there is one, else resident in this process.

        with machine.Peak() as peak: train()
        peak.bytes

    Of a process, memory is read every `INTERVAL` seconds, and the system's own mark counts where it rose. That mark
    stays as it is, so that a peak that is looked at from outside is right.
    """

    INTERVAL = 0.01

    def __init__(self) -> None:
        self._process, self._ended = psutil.Process(), threading.Event()
        self._most, self._mark = self._resident(), _mark()
        self._thread = threading.Thread(target=self._watch, name="peak of memory", daemon=True)

    def __enter__(self) -> "Peak":
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if torch.cuda.is_available():
            self._most = int(torch.cuda.max_memory_allocated())  # later peaks begin anew
        else:
            self._thread.join()

    @property
    def bytes(self) -> int:
        """Returns the most memory so far, or, after it was closed, until then, in bytes."""
        if not self._ended.is_set() and torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
        if not self._ended.is_set():
            self._note()
        return self._most

    def _watch(self) -> None:
        while not self._ended.wait(self.INTERVAL):
            self._note()
        self._note()

    def _note(self) -> None:
        mark = _mark()
        self._most = max(self._most, self._resident(), mark if mark > self._mark else 0)

    def _resident(self) -> int:
        return int(self._process.memory_info().rss)


def _mark() -> int:
    """Returns the most bytes that were ever resident in this process, as Linux notes it; 0 elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 2**10
    return 0


def on_gpu() -> bool:
    """Returns whether memory is that of a GPU."""
    return torch.cuda.is_available()


def held_bytes() -> int:
    """Returns the memory that is taken now, in bytes: allocated on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Starts a new measurement of memory: of the GPU if there is one, else, on Linux, of this process.

    The system's mark begins anew, so that a peak that is looked at from outside is too low: for processes of one's own
    alone. `Peak` leaves it.
    """
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
    return _mark() / 2**20 or None


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
            cached = sum(int(stat.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))
            found.append(int(limit) - int(used) + cached)
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
