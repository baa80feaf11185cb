"""The bytes that a process holds while an arm trains, derived from shapes and number formats.

What passes need (activations, and the room to work in) is measured: see `foci.learn.trial`. With `train.fsdp` each of N
processes holds the first axis of every parameter in N parts (FSDP2), and gathers a layer while it passes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from peft import PeftModel
from torch import Tensor, nn

from foci.models import LanguageModel
from foci.models.architecture import base_of, is_layer
from foci.models.lean import Lean
from foci.models.on_disk import is_on_disk


@dataclass(frozen=True)
class Memory:
    """The bytes of one process, on its device, while it trains.

    `parameters`: all weights and buffers. `copies`: frozen weights a second time, in the number format of the passes.
    `gradients`: those of the weights that train, with several processes that each hold the whole model (DDP) twice.
    `optimizer`: AdamW's two moments. `gathered`: what FSDP2 holds whole at a time, a layer and the embeddings.
    `program`: Python and its libraries, where the device is the machine itself. `activations`: what the passes of an
    update take beside all this, and the room to work in; None where it was not measured. `files`: what of parameters
    and copies lies in files (`model.on_disk`), whose memory the system takes back where it is short.
    """

    parameters: int
    copies: int
    gradients: int
    optimizer: int
    gathered: int = 0
    program: int = 0
    activations: int | None = None
    files: int = 0

    @property
    def total(self) -> int:
        """Returns the sum."""
        return self.held + self.program + (self.activations or 0)

    @property
    def held(self) -> int:
        """Returns the sum of what is derived."""
        return self.parameters + self.copies + self.gradients + self.optimizer + self.gathered

    def with_peak(self, peak: int, program: int) -> "Memory":
        """Returns the memory with activations as what a peak holds beside the derived parts and the program."""
        return replace(self, program=program, activations=max(0, peak - program - self.held))

    def of_processes(self, other: "Memory") -> "Memory":
        """Returns the derived parts of `other`, with what was measured here."""
        return replace(other, program=self.program, activations=self.activations)


def memory_of(model: LanguageModel, dtype: torch.dtype, *, processes: int = 1, sharded: bool = False) -> Memory:
    """Returns the derived parts, in bytes, of a whole model that is to train in so many processes.

    `dtype` is the type that is computed in. `sharded`: the processes share the model.
    """
    parts = processes if sharded else 1
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    lean = Lean.of(model, dtype) if isinstance(model, PeftModel) and parts == 1 else None
    gradients = sum(_part(p, parts) for p in trained)
    copies = 0 if lean is None else sum(_bytes(half) for *_, half in lean.parameters)
    frozen = sum(_bytes(p) for p in parameters if not p.requires_grad)
    return Memory(
        parameters=sum(_part(p, parts) for p in parameters) + sum(map(_bytes, model.buffers())),
        copies=copies,
        gradients=gradients * (2 if processes > 1 and not sharded else 1),
        optimizer=2 * gradients + 4 * len(trained),  # and the count of its updates, one number for each
        gathered=_gathered(model) if parts > 1 else 0,
        files=frozen + copies if is_on_disk(model) else 0,
    )


def _gathered(model: LanguageModel) -> int:
    """Returns what FSDP2 holds whole at a time: the largest layer and all that is in none, and their gradients."""
    layers = {name: module for name, module in base_of(model).named_modules() if is_layer(name)}
    inside = {id(p) for module in layers.values() for p in module.parameters()}
    largest = max((_whole(module.parameters()) for module in layers.values()), default=0)
    return largest + _whole(p for p in model.parameters() if id(p) not in inside)


def _whole(parameters: Iterable[nn.Parameter]) -> int:
    return sum(_bytes(p) * (2 if p.requires_grad else 1) for p in parameters)


def _part(tensor: Tensor, parts: int) -> int:
    """Returns the bytes of the first of so many parts along the first axis, which FSDP2 makes the largest."""
    if parts == 1 or not tensor.dim():
        return _bytes(tensor)
    return math.ceil(tensor.shape[0] / parts) * (tensor.numel() // tensor.shape[0]) * tensor.element_size()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
