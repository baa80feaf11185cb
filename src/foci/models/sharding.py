"""Shards a model over the processes by FSDP2, and carries whole tensors out of it and into it.

    shard(model)                                     # each process keeps its part of every parameter
    state = whole_state(model, keep=is_first())      # every process must call it
    model.load_state_dict(state)                     # each process takes its part of whole tensors

The layout is that of `torch.distributed.fsdp`: each layer is gathered for its own passes, and embeddings, last norm and
head are gathered together for the whole pass, so that the head can be called after it (`foci.models.losses`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from peft import PeftModel
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from foci.models import fsdp
from foci.models.architecture import LanguageModel, base_of, is_layer
from foci.models.balancing import is_balanced
from foci.models.decoding import decodes_from_cache
from foci.models.head import head_of
from foci.models.padding import check_padding
from foci.models.prefixes import shares_prefixes

_OURS: WeakSet[Any] = WeakSet()
"""Models that `shard` has sharded."""


def shard(model: LanguageModel) -> None:
    """Shards all parameters over the connected processes, in place; each must hold the same whole model.

    Whole tensors can be loaded into it. Raises ValueError for a model or an adapter that cannot be sharded.
    """
    base = base_of(model)
    _check(model)
    if not distributed.is_initialized():
        raise ValueError(
            f"FSDP shards {type(base).__name__} over connected processes, and this one is alone; start the "
            "script with torchrun, and make the TrainingArguments, which connect the processes, before it is sharded"
        )
    _prove(model)
    mesh = init_device_mesh(next(base.parameters()).device.type, (distributed.get_world_size(),))
    for name, module in base.named_modules():
        if is_layer(name):
            fully_shard(module, mesh=mesh)
    outer = fully_shard(base, mesh=mesh)
    outer.set_reduce_scatter_unused_params(True)  # processes read other rows, which may need other experts
    for module in base.modules():
        module.register_load_state_dict_pre_hook(_take_parts)
    _OURS.add(base)
    fsdp.reset(model)


def _check(model: LanguageModel) -> None:
    if is_balanced(model):
        raise ValueError(
            f"{type(base_of(model)).__name__} adds a balancing loss of its routers (output_router_logits: true), which "
            "foci does not shard; set output_router_logits: false in its configuration, or train.fsdp: false"
        )
    adapters = model.peft_config.values() if isinstance(model, PeftModel) else ()
    if wrong := sorted({str(settings.peft_type.value).lower() for settings in adapters} - {"lora"}):
        raise ValueError(
            f"FSDP shards adapters of the types lora, rslora and dora, and models without an adapter, got {wrong[0]}; "
            "change adapter.type, or set train.fsdp: false"
        )
    if scalars := [name for name, p in model.named_parameters() if p.ndim == 0]:
        raise ValueError(
            f"FSDP2 shards parameters of at least one axis, got the single number {scalars[0]}; set train.fsdp: false"
        )


def _prove(model: LanguageModel) -> None:
    """Asks of the whole model what is asked once by passes of its own: later a process could not pass alone."""
    head_of(model)
    check_padding(model)
    for uneven in (False, True):
        decodes_from_cache(model, uneven=uneven)
    shares_prefixes(model)


def check_trainable(model: nn.Module) -> None:
    """Raises ValueError for a sharded model that `shard` did not shard, or of which a part was added afterwards.

    Processes that read other rows would wait for each other, or train parts that no other process sees.
    """
    fsdp.check(model)
    outer, cure = fsdp.root(model), "shard the whole model by foci.models.sharding.shard(model)"
    if outer is None:
        return
    if outer not in _OURS:
        raise ValueError(
            f"a sharded model trains where foci has sharded it, got a {type(base_of(model)).__name__} that "  # type: ignore[arg-type]
            f"fully_shard has split in another way; {cure}, and call no fully_shard before"
        )
    if added := [name for name, p in model.named_parameters() if not isinstance(p, DTensor)]:
        raise ValueError(f"processes must share all of a sharded model, got {added[0]!r} whole in each; {cure} last")


def is_sharded(model: nn.Module) -> bool:
    """Returns whether FSDP2 shards the model."""
    return fsdp.root(model) is not None


@contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """Frees what passes without a backward pass leave in memory when it ends; does nothing without sharding."""
    fsdp.reset(model)
    try:
        with torch.no_grad():
            yield
    finally:
        fsdp.reset(model)


def end_backward_at(model: nn.Module, loss: Tensor) -> None:
    """Lets FSDP2 average gradients when the backward pass from `loss` ends; does nothing without sharding.

    FSDP2 sees a backward pass by the model's output, and foci's loss is computed after it.
    """
    outer = fsdp.root(model)
    if outer is not None and loss.requires_grad:
        outer._get_fsdp_state()._register_pre_backward_hook(loss)


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """Returns the part of a whole tensor that this process holds of `like`; without sharding the whole."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole(value: Tensor) -> Tensor:
    """Returns a tensor put together from the parts of all processes; every process must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_state(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Returns what a checkpoint holds of a sharded model, on the CPU: all weights, or of an adapter its own.

    Every process must call it; only one that is told to `keep` the tensors gets them. A tied weight comes once.
    """
    fsdp.reset(model)
    parameters, found = dict(model.named_parameters()), dict[str, Tensor]()
    prefix = model.base_model.prefix if isinstance(model, PeftModel) else ""
    for name, value in model.state_dict().items():
        own = parameters.get(name)
        twice = isinstance(value, DTensor) and own is None
        if twice or (prefix not in name and not getattr(own, "requires_grad", False)):
            continue
        gathered = whole(value)
        if keep:
            found[name] = gathered.detach().cpu().clone()
    return found


def whole_optimizer(state: Any, *, keep: bool) -> Any:
    """Returns an optimiser's state with whole tensors on the CPU; every process must call it.

    Only one that is told to `keep` the tensors gets them.
    """
    if isinstance(state, Mapping):
        return {name: whole_optimizer(value, keep=keep) for name, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    gathered = whole(state)
    return gathered.cpu().clone() if keep else None


def parts_of_optimizer(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns an optimiser's whole state as the parts that this process holds of its parameters."""
    places = [place for group in state["param_groups"] for place in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    own = dict(zip(places, parameters, strict=True))

    def part(value: Any, like: Tensor) -> Any:
        return part_of(value, like) if isinstance(value, Tensor) and value.shape == like.shape else value

    parts = {
        place: {name: part(value, own[place]) for name, value in values.items()}
        for place, values in state["state"].items()
    }
    return {**state, "state": parts}


def _take_parts(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Puts this process' parts into the place of whole tensors that are loaded into a module."""
    for name, parameter in module._parameters.items():
        value = state.get(prefix + name)
        is_whole = isinstance(value, Tensor) and not isinstance(value, DTensor)
        if isinstance(parameter, DTensor) and is_whole and value.shape == parameter.shape:
            state[prefix + name] = part_of(value, parameter)
