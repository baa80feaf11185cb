"""Weights in files that are mapped into memory, for a base model that is larger than memory.

The system reads a part of such a file where it is needed, and takes its memory back where memory is short. The numbers
are those of weights in memory, and so is all that is computed from them. The files have no name: nothing is left of
them after the process, also if it is killed. An adapter that is put upon the weights stays in memory.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foci.models.architecture import LanguageModel, base_of
from foci.models.whole import weight_names
from foci.system.scratch import in_temporary_folder

INDEX = "model.safetensors.index.json"
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

    That is `folder` itself where they are stored so; else a temporary one, into which they are copied one by one.
    """
    names = weight_names(folder, "model")
    if all(_are_float32(folder / name) for name in names):
        yield folder
        return
    with in_temporary_folder() as above, tempfile.TemporaryDirectory(dir=above, prefix="foci-float32-") as made:
        places = dict[str, str]()
        for name in names:
            for key, weight in _weights(folder / name):
                places[key] = f"model-{len(places):05d}.safetensors"
                save_file({key: weight}, Path(made) / places[key], metadata={"format": "pt"})
        (Path(made) / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), "utf-8")
        for file in folder.iterdir():
            if file.name not in {*names, INDEX}:
                (Path(made) / file.name).symlink_to(file.resolve())
        yield Path(made)


def _are_float32(path: Path) -> bool:
    with safe_open(path, "pt") as weights:
        return all(weights.get_slice(key).get_dtype() == "F32" for key in weights.keys())  # noqa: SIM118


def _weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yields the names and weights of a file; numbers with a point in float32."""
    with safe_open(path, "pt") as weights:
        for key in weights.keys():  # noqa: SIM118
            weight = weights.get_tensor(key)
            yield key, weight.float() if weight.is_floating_point() else weight
