"""Gradients and steps of models that FSDP2 shards over processes.

After `torch.distributed.fsdp.fully_shard` a parameter is a DTensor of which each process has a part. FSDP2 averages
gradients over processes at the end of its own backward pass; before that there are none. A forward pass may leave whole
parameters in memory, which a change of the parts would not reach. Every process must pass the same batch: the average
is then the gradient of one process.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from foci.models.head import head_of


def root(model: nn.Module) -> FSDPModule | None:
    """Returns the outermost module that FSDP2 shards, or None."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return None  # without a walk through all modules at every forward pass
    return next((module for module in model.modules() if isinstance(module, FSDPModule)), None)


def check(model: nn.Module) -> None:
    """Raises ValueError if parameters are sharded in a way that this module cannot handle."""
    flat = [module for module in model.modules() if isinstance(module, FullyShardedDataParallel)]
    if flat:
        raise ValueError(
            f"the model must be whole or sharded by FSDP2, got {len(flat)} modules of FSDP1 around "
            f"{type(flat[0].module).__name__}; shard the model by torch.distributed.fsdp.fully_shard (FSDP2)"
        )
    outer, modules = root(model), {n: m for n, m in model.named_modules() if isinstance(m, FSDPModule)}
    if outer is None:
        _check_parts(model, 0)
        return
    inside = set(outer.modules())  # type: ignore[attr-defined]
    outside = [name for name, module in modules.items() if module not in inside]
    if outside:
        raise ValueError(
            f"FSDP2 must shard the model itself, got {len(modules)} sharded modules and none that contains "
            f"{outside[0]!r} and the others; call fully_shard on the model last"
        )
    for name, module in modules.items():
        _check_settings(name, module)
    reset(model)
    _check_parts(model, 1)
    hooked = [name for name, p in model.named_parameters() if getattr(p, "_post_accumulate_grad_hooks", None)]
    if hooked:
        raise ValueError(
            f"gradients of a sharded model are read from .grad, which hooks must not change, got hooks on "
            f"{len(hooked)} parameters, {hooked[0]!r} first; remove them (register_post_accumulate_grad_hook)"
        )


def _check_parts(model: nn.Module, axes: int) -> None:
    """Raises ValueError if a parameter is split along more than `axes` axes of the device mesh."""
    for name, p in model.named_parameters():
        if isinstance(p, DTensor) and len(_split_axes(p)) > axes:
            raise ValueError(
                f"parameter {name!r} must be whole or split by FSDP2 alone, got {p.placements} over {p.device_mesh}; "
                "load the model without tensor parallelism"
            )


def _check_settings(name: str, module: FSDPModule) -> None:
    """Raises ValueError unless FSDP2 averages float32 gradients after each backward pass."""
    half, state = (torch.bfloat16, torch.float16), module._get_fsdp_state()
    wrong = {f"{n}={kind}" for n, kind in vars(state._mp_policy).items() if n.endswith("_dtype") and kind in half}
    for group in state._fsdp_param_groups:
        whole = [getattr(p, "_unsharded_param", None) for p in group.fsdp_params]
        if not (group.reduce_grads and group.all_reduce_grads):
            wrong.add("set_requires_gradient_sync(False)")
        if group.gradient_divide_factor is not None:
            wrong.add(f"gradient_divide_factor={group.gradient_divide_factor}")
        if any(p is not None and p.grad is not None for p in whole):
            wrong.add("gradients that wait to be averaged")
    if wrong:
        raise ValueError(
            f"FSDP2 must compute {name or 'the model'!r} in float32 and average its gradients over processes after "
            f"every backward pass, got {', '.join(sorted(wrong))}; remove it, or finish the accumulation first"
        )


def check_same(model: nn.Module, **given: Tensor) -> None:
    """Raises ValueError on every process if the processes were given different tensors; does nothing without sharding.

    With different rows, FSDP2's average would count all processes alike whatever their tokens, and sums over tokens
    would miss those of the other processes.
    """
    meshes = _meshes(model)
    if not meshes:
        return
    marks = torch.tensor([_digest(value) for value in given.values()])
    found = _over_processes(torch.cat([marks, -marks]), meshes, distributed.ReduceOp.MAX)
    differ = [name for name, most, least in zip(given, *found.chunk(2), strict=True) if most != -least]
    if differ:
        raise ValueError(
            f"every process of a sharded model must pass the same tensors, got different {', '.join(differ)} on some; "
            "gather the rows and weights of all processes and pass them on each"
        )


def largest(model: nn.Module, value: float) -> float:
    """Returns the largest of the processes' values, so that all decide alike; without sharding the value itself."""
    meshes = _meshes(model)
    if not meshes:
        return value
    return float(_over_processes(torch.tensor([value], dtype=torch.float64), meshes, distributed.ReduceOp.MAX))


def norm(tensors: Mapping[str, Tensor]) -> float:
    """Returns the L2 norm of all tensors together, on whatever devices and however they are split."""
    squares: dict[tuple[DeviceMesh, tuple[int, ...]] | None, float] = {}
    for t in tensors.values():
        split = (t.device_mesh, _split_axes(t)) if isinstance(t, DTensor) else None
        squares[split] = squares.get(split, 0.0) + float(torch.linalg.vector_norm(local(t).float())) ** 2
    for split, square in squares.items():
        if split is not None:
            mesh, axes = split
            part = torch.tensor([square], dtype=torch.float64)
            squares[split] = float(_over_processes(part, {mesh: axes}, distributed.ReduceOp.SUM))
    return sum(squares.values()) ** 0.5


def local(tensor: Tensor) -> Tensor:
    """Returns this process' part of a tensor (the whole if it is not split), detached and in the same memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def reset(model: nn.Module) -> None:
    """Frees whole parameters that a forward pass left in memory, and forgets a pass that was not finished.

    Does nothing without sharding.
    """
    outer = root(model)
    if outer is not None:
        outer._get_fsdp_state()._lazy_init()  # now, before a stand-in takes the head's place
        outer.reset_iter_state()


@contextmanager
def parts_replaced(model: nn.Module, parts: Mapping[str, Tensor]) -> Iterator[None]:
    """Gives parameters of a sharded model other values while open; `parts` are those of this process, by name."""
    reset(model)
    own = {name: local(p) for name, p in model.named_parameters() if name in parts}
    before = {name: place.clone() for name, place in own.items()}
    try:
        _put(own, parts)
        yield
    finally:
        reset(model)  # whole parameters with these values may be left in memory
        _put(own, before)


@torch.no_grad()
def _put(places: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, place in places.items():
        place.copy_(values[name])


@contextmanager
def head_callable(model: nn.Module) -> Iterator[None]:
    """Lets a sharded model's head be called after its forward pass, while open; resets the model before and after."""
    outer = root(model)
    if outer is None:
        yield
        return
    head = head_of(model)  # its proof runs the model, so it comes before the reset
    reset(model)
    hook = head.module.register_forward_pre_hook(lambda *_: outer.unshard())  # type: ignore[arg-type]
    try:
        yield
    finally:
        hook.remove()
        reset(model)


def gradients(outer: FSDPModule, loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Returns this process' parts of the averaged gradient by name. `.grad` stays as it was.

    Parameters that the loss does not reach are left out. `parameters` are this process' parts, taken before the forward
    pass. Raises RuntimeError if FSDP2 left no gradient.
    """
    before = {name: p.grad for name, p in parameters.items()}
    for p in parameters.values():
        p.grad = None
    try:
        outer._get_fsdp_state()._register_pre_backward_hook(loss)  # FSDP2 ends a backward pass that it saw begin
        loss.backward()
        found = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    finally:
        for name, p in parameters.items():
            p.grad = before[name]
    if not found:
        raise RuntimeError(
            f"FSDP2 left no gradient in any of {len(parameters)} parameters after the backward pass; "
            "the loss must come from a forward pass of the sharded model itself"
        )
    return found


def _split_axes(tensor: DTensor) -> tuple[int, ...]:
    """Returns the axes of the device mesh along which the tensor is split."""
    return tuple(axis for axis, placement in enumerate(tensor.placements) if not placement.is_replicate())


def _meshes(model: nn.Module) -> dict[DeviceMesh, tuple[int, ...]]:
    """Returns the device meshes of the parameters, each with all its axes."""
    reset(model)
    return {p.device_mesh: tuple(range(p.device_mesh.ndim)) for p in model.parameters() if isinstance(p, DTensor)}


def _over_processes(
    value: Tensor, meshes: Mapping[DeviceMesh, tuple[int, ...]], how: distributed.ReduceOp.RedOpType
) -> Tensor:
    for mesh, axes in meshes.items():
        value = value.to(mesh.device_type)
        for axis in axes:
            distributed.all_reduce(value, op=how, group=mesh.get_group(axis))
    return value.cpu()


def _digest(tensor: Tensor) -> int:
    """Returns 62 bits of the SHA-256 of shape, dtype and every byte."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 2
