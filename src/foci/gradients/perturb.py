"""Trainable parameters: their gradients by name, and moves along a direction that are undone.

Works for whole parameters and for those that FSDP2 shards over processes (`foci.models.fsdp`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foci.models import fsdp


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the trainable parameters by name; of a sharded model, this process' parts.

    Raises ValueError if there are none, or if one is not in memory.
    """
    fsdp.reset(model)
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("no parameter of the model requires a gradient, so no step can move it; unfreeze some")
    away = [name for name, p in found.items() if p.is_meta or p.numel() == 0]
    if away:
        raise ValueError(
            f"a step moves parameters that are in memory, got {len(away)} of {len(found)} that are kept elsewhere "
            f"(offloaded, or sharded by DeepSpeed), {away[0]!r} first; load those on a device, or freeze them"
        )
    return found


def gradients(model: nn.Module, loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Returns the loss' gradients by name, without parameters that the loss does not reach. `.grad` stays as it is.

    `parameters` are those of `trainable`, taken before the loss was computed.
    """
    outer = fsdp.root(model)
    if outer is not None:
        return fsdp.gradients(outer, loss, parameters)
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: g.detach() for name, g in zip(parameters, found, strict=True) if g is not None}


@contextmanager
def moved(model: nn.Module, direction: Mapping[str, Tensor], length: float = 0.0) -> Iterator[Callable[[float], None]]:
    """Sets the weights to theta + length * direction while open; afterwards they are theta again, bit for bit.

    Yields a function that goes to another length. Theta is copied once, however many lengths follow.
    """
    parameters = trainable(model)
    places = {name: (fsdp.local(parameters[name]), fsdp.local(along)) for name, along in direction.items()}
    before = {name: place.clone() for name, (place, _) in places.items()}

    def move(length: float) -> None:
        fsdp.reset(model)
        with torch.no_grad():
            for name, (place, along) in places.items():
                torch.add(before[name], along, alpha=length, out=place)

    if length:
        move(length)
    try:
        yield move
    finally:
        fsdp.reset(model)
        with torch.no_grad():
            for name, (place, _) in places.items():
                place.copy_(before[name])
