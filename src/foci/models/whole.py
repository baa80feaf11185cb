"""Checks that a model's files are whole before anything large is read, and names the file where they are not."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from foci.system.files import is_plain

POINTER = b"version https://git-lfs"
"""The first bytes of a Git LFS pointer."""
_LARGEST_HEADER = 100_000_000


def read_json(path: Path) -> dict[str, Any]:
    """Reads the object in a JSON file. Raises ValueError if it is not JSON or not an object."""
    check_pointer(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); get the file again from where the model came from") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold one JSON object, got {type(value).__name__}; get the file again")  # noqa: TRY004
    return value


def check_pointer(path: Path) -> None:
    """Raises ValueError for a Git LFS pointer in place of a file."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer, not the file itself; fetch the files with: git -C {path.parent} lfs pull"
            )


def weight_names(folder: Path, stem: str) -> list[str]:
    """Returns the names of the weight files that are loaded: those of the index where there is one, else one file.

    `stem` is "model" or "adapter_model". Raises ValueError for an index that is not one.
    """
    index = folder / f"{stem}.safetensors.index.json"
    single = f"{stem}.safetensors"
    if (folder / single).is_file() or not index.is_file():
        return [single]
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(
            f"{index} should name a file for each weight in 'weight_map', got {str(names)[:60]}; get it again"
        )
    if odd := sorted(name for name in set(names.values()) if not is_plain(name)):
        raise ValueError(
            f"{index} names the weight file {odd[0]!r}, which leads out of the model's folder; expected files beside "
            "it: get the model again from where it came from"
        )
    return sorted(set(names.values()))


def check_weights(folder: Path, stem: str) -> None:
    """Raises ValueError, which names the file, where a weight file is missing, cut, or something else."""
    for name in weight_names(folder, stem):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing, though {stem}.safetensors.index.json names it; get it again")
        check_safetensors(folder / name)


def check_safetensors(path: Path) -> None:
    """Raises ValueError where a file has not the bytes that its header promises. Reads the header alone."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; get it again from where the model came from")
    check_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length) if length <= min(size, _LARGEST_HEADER) else b""
    try:
        header = json.loads(raw)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        cut = size < 8 or size < 8 + length <= _LARGEST_HEADER
        reason = "ends within its header" if cut else "is not a safetensors file (it has no readable header)"
        raise ValueError(f"{path} {reason}: {size:,} bytes; get it again from where the model came from") from None
    if size < expected:
        raise ValueError(
            f"{path} ends too early: it has {size:,} of {expected:,} bytes; get it again from where the model came from"
        )
    if size > expected:
        raise ValueError(f"{path} has {size:,} bytes, its header says {expected:,}; get it again")


def check_numbers(weights: Iterable[tuple[str, torch.Tensor]], name: str) -> None:
    """Raises ValueError, which names the weight, where one holds numbers that are NaN or infinite."""
    for key, weight in weights:
        if not _all_finite(weight.detach()):
            raise ValueError(
                f"{name}: the weight {key} holds numbers that are NaN or infinite, as after a training that diverged; "
                "get the files again, or take a checkpoint from before"
            )


def _all_finite(weight: torch.Tensor) -> bool:
    """Returns whether no number is NaN or infinite: the smallest and the largest tell, without another copy."""
    weight = torch.view_as_real(weight) if weight.is_complex() else weight
    if not weight.is_floating_point() or not weight.numel():
        return True
    ends = (weight if weight.element_size() > 1 else weight.to(torch.bfloat16)).aminmax()
    return bool(ends.min.isfinite() and ends.max.isfinite())


@contextlib.contextmanager
def explained(name: str, what: str, folder: Path) -> Iterator[None]:
    """Turns an error of a library that reads `what` into a ValueError that names model, folder and cure."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model {name!r}: {what} in {folder} cannot be read ({type(error).__name__}: {reason}); get the files "
            "again from where the model came from, or correct the one that is named"
        ) from error
