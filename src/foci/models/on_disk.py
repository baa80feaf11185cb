"""Weights in files that are mapped into memory, for a base model that is larger than memory.

The system reads each part of such a file when it is needed. When memory is short, it drops parts, and reads them again
later. The numbers are those of weights in memory, and so is all that is computed from them. The files have no name:
nothing is left of them after the process, also if it is killed. An adapter upon the weights stays in memory.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import psutil
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foci.models.architecture import LanguageModel, base_of
from foci.models.whole import weight_names
from foci.system.scratch import in_temporary_folder, lies_in_memory, temporary_folder, temporary_folder_of

INDEX = "model.safetensors.index.json"
PREFIX = "foci-float32-"
"""How the names of temporary folders with weights in float32 begin."""
PART = 2**20
"""Numbers that are in memory at a time while a tensor is written."""
_ON_DISK: WeakSet[Any] = WeakSet()
"""Models that `put_on_disk` was given."""


def mapped(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Returns a copy of a tensor of the CPU, in a file without a name of the folder for temporary files.

    `dtype` is the number format of the copy; None: that of the tensor. What is written into the copy goes to the file.
    Raises `DiskFull`, which names the folder, where nothing more fits.
    """
    flat, kind = tensor.detach().reshape(-1), dtype or tensor.dtype
    if not flat.numel():
        return tensor.detach().to(kind, copy=True)
    with in_temporary_folder() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
        for part in flat.split(PART):
            file.write(memoryview(part.to(kind).view(torch.uint8).numpy()))
        file.flush()
        found = torch.from_file(file.name, shared=True, size=flat.numel(), dtype=kind)
    return found.view(tensor.shape)


def check_folder() -> None:
    """Raises ValueError, with the cure, where the folder for temporary files lies in memory."""
    if lies_in_memory(folder := temporary_folder()):
        raise ValueError(
            f"model.on_disk: true puts weights into the folder for temporary files, and {folder} lies in memory "
            "(tmpfs), which they would fill; name a folder on a disk: TMPDIR=FOLDER before the command"
        )


def put_on_disk(model: nn.Module) -> None:
    """Moves all parameters of a model of the CPU to files, one after another, in place. Raises what `mapped` does."""
    for parameter in model.parameters():
        parameter.data = mapped(parameter.data)
    _ON_DISK.add(model)


def is_on_disk(model: LanguageModel) -> bool:
    """Returns whether the weights of a model, or of the one below its adapter, lie in files."""
    return base_of(model) in _ON_DISK


@contextmanager
def float32_files(folder: Path) -> Iterator[Path]:
    """Yields a folder with the model of `folder`, whose weights are stored in float32: they are mapped when loaded.

    That is `folder` itself where they are stored so, in files that can be mapped: the system maps no file that is
    larger than the memory in a way that allows writing. Else it is a temporary one, into which weights are copied one
    by one. Raises `DiskFull` where they do not fit there.
    """
    names, memory = weight_names(folder, "model"), psutil.virtual_memory().total
    if all((folder / name).stat().st_size < memory and _are_float32(folder / name) for name in names):
        yield folder
        return
    with temporary_folder_of(PREFIX) as above:
        made, places = above / folder.name, dict[str, str]()  # code that comes with a model is known by this name
        made.mkdir()
        for name in names:
            for key, weight in _weights(folder / name):
                places[key] = f"model-{len(places):05d}.safetensors"
                save_file({key: weight}, made / places[key], metadata={"format": "pt"})
        (made / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), "utf-8")
        for file in folder.iterdir():
            if file.name not in {*names, INDEX}:
                (made / file.name).symlink_to(file.resolve())
        yield made


def _are_float32(path: Path) -> bool:
    with safe_open(path, "np") as weights:
        return all(weights.get_slice(key).get_dtype() == "F32" for key in weights.keys())  # noqa: SIM118


def _weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yields the names and weights of a file; numbers with a point in float32."""
    with safe_open(path, "pt", backend="pread") as weights:
        for key in weights.keys():  # noqa: SIM118
            weight = weights.get_tensor(key)
            yield key, weight.float() if weight.is_floating_point() else weight
