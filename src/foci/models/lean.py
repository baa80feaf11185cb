"""Training passes of a model with adapters in less time: its frozen weights in the precision of the pass.

    with Lean.of(model, torch.bfloat16).on(): loss(model).backward()

Autocast casts a frozen float32 weight again at every pass, and PEFT and the norms keep float32 copies of what flows in.
While `on` is open, the frozen weights of linear layers are copies in autocast's format, made once, and LoRA layers,
RMSNorms and gated MLPs are computed by `lean_parts`. They round where autocast rounds; the stream between the layers
and what trains stay in float32. Outside of `on` the model is the one that was given, so probes, checkpoints and what is
saved do not change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from foci.models.architecture import base_of, equal_logits, evaluating, precision_of, sample_ids
from foci.models.lean_parts import gated_lora, gated_silu, lora_linear, rms_norm
from foci.models.on_disk import is_on_disk, mapped
from foci.models.padding import check_padding
from foci.models.quantised import is_quantised

SHORT = 192
"""Tokens of a row up to which CPUs run attention faster in float32 than in bfloat16 (LOG.md, 2026-11-28)."""

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Lean:
    """The changes while `on` is open: frozen parameters by place, and the forward passes of some modules."""

    dtype: torch.dtype
    parameters: tuple[tuple[dict[str, Any], str, nn.Parameter, nn.Parameter], ...]
    forwards: tuple[tuple[nn.Module, Forward], ...]
    device: str

    @staticmethod
    def of(model: nn.Module, dtype: torch.dtype) -> "Lean | None":
        """Returns how to run the model; None where it has no adapter, or where the lean model is not the same.

        The first passes of the model are compared on 8 tokens: None too if the logits differ by more than the number
        format explains, or if the model cannot run so. `dtype` is bfloat16 or float32.
        """
        parameters = list(model.parameters())
        if not isinstance(model, PeftModel) or any(isinstance(p, DTensor) for p in parameters) or is_quantised(model):
            return None
        if dtype not in (torch.bfloat16, torch.float32) or any(p.is_floating_point() and p.dtype != torch.float32
                                                               for p in parameters):  # fmt: skip
            return None
        device = parameters[0].device.type
        try:  # what is asked of a model once is asked of the model as it is, in float32
            check_padding(model)
        except ValueError:
            return None
        found = Lean(dtype, tuple(_frozen(model, dtype)), tuple(_forwards(model, dtype)), device)
        return found if _agrees(model, found) else None

    @contextmanager
    def on(self) -> Iterator[None]:
        """Makes the model lean while open: forward and backward pass both belong inside."""
        for place, name, _, half in self.parameters:
            place[name] = half
        for module, forward in self.forwards:
            module.__dict__["forward"] = forward
        attention = _ShortAttention() if self.device == "cpu" and self.dtype == torch.bfloat16 else nullcontext()
        try:
            with attention:
                yield
        finally:
            for place, name, full, _ in self.parameters:
                place[name] = full
            for module, _ in self.forwards:
                module.__dict__.pop("forward", None)


def _frozen(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[dict[str, Any], str, nn.Parameter, nn.Parameter]]:
    """Yields the place, name, parameter and copy of the frozen parameters of every linear layer but the LM head.

    Autocast would cast these at each pass. The head is cast once per update already, and its weight may be tied.
    """
    head = base_of(model).get_output_embeddings()  # type: ignore[arg-type]
    copy = mapped if is_on_disk(model) else Tensor.to  # type: ignore[arg-type]
    for module in model.modules():
        if type(module) is not nn.Linear or module is head:
            continue
        for name, parameter in module._parameters.items():
            if parameter is not None and not parameter.requires_grad and parameter.dtype != dtype:
                yield module._parameters, name, parameter, nn.Parameter(copy(parameter.detach(), dtype), False)


def _forwards(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[nn.Module, Forward]]:
    """Yields the modules that run in another way, and that way."""
    for module in model.modules():
        if "forward" in module.__dict__ or module._forward_hooks or module._forward_pre_hooks:
            continue  # somebody has changed it already
        if type(module) is LoraLinear and _is_plain(module):
            yield module, partial(_lora, module, dtype)
        elif (gain := _gain(module)) is not None:
            yield module, partial(_norm, module, gain, dtype)
        elif _is_gated(module):
            yield module, partial(_mlp, module)


def _is_plain(module: LoraLinear) -> bool:
    """Returns whether a layer is LoRA on a linear layer with one adapter and nothing else."""
    names = list(module.lora_A)
    return (
        type(module.base_layer) is nn.Linear
        and not module.base_layer.weight.requires_grad
        and len(names) == 1
        and not module.lora_variant
        and not module.fan_in_fan_out
        and type(module.lora_A[names[0]]) is nn.Linear
        and module.lora_B[names[0]].bias is None
        and isinstance(module.lora_dropout[names[0]], nn.Identity)
    )


def _lora(module: LoraLinear, dtype: torch.dtype, x: Tensor, *more: Any, **named: Any) -> Any:
    if more or named or module.merged or not (module.disable_adapters or _is_on(module)):
        return type(module).forward(module, x, *more, **named)
    return lora_linear(x, *_weights(module), dtype) if _is_on(module) else module.base_layer(x)


def _is_on(module: LoraLinear) -> bool:
    """Returns whether a layer adds its one adapter now."""
    return not module.merged and not module.disable_adapters and module.active_adapters == [next(iter(module.lora_A))]


def _weights(module: LoraLinear) -> tuple[Tensor, Tensor | None, Tensor, Tensor, float]:
    """Returns the layer's W and bias, and the adapter's A, B and scale."""
    name, layer = next(iter(module.lora_A)), module.base_layer
    down, up = module.lora_A[name].weight, module.lora_B[name].weight
    return layer.weight, layer.bias, down, up, module.scaling[name]


def _gain(module: nn.Module) -> str | None:
    """Returns which gain a module is an RMSNorm with ("weight" or "1 + weight"); None if it is none, or trains."""
    weight, eps = getattr(module, "weight", None), _eps(module)
    named = type(module).__name__.endswith("RMSNorm") and len(list(module.parameters())) == 1
    if not named or not isinstance(weight, Tensor) or weight.dim() != 1 or weight.requires_grad or eps is None:
        return None
    x = torch.linspace(-2, 3, 4 * len(weight), device=weight.device).view(2, 2, -1)
    x = x * (1 + torch.arange(len(weight), device=weight.device) % 3)
    with torch.no_grad():
        try:
            theirs = module(x)
        except (TypeError, ValueError, RuntimeError):
            return None
        for gain in ("weight", "1 + weight"):
            ours = rms_norm(x, _of(weight, gain), eps, x.dtype)
            if ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5):
                return gain
    return None


def _eps(module: nn.Module) -> float | None:
    found = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return float(found) if isinstance(found, int | float) else None


def _of(weight: Tensor, gain: str) -> Tensor:
    full = weight.detach().float() if weight.dtype == torch.bfloat16 else weight.detach()
    return full if gain == "weight" else 1 + full


def _norm(module: nn.Module, gain: str, dtype: torch.dtype, x: Tensor) -> Tensor:
    return rms_norm(x, _of(module.weight, gain), _eps(module) or 0.0, dtype)  # type: ignore[arg-type]


def _is_gated(module: nn.Module) -> bool:
    """Returns whether a module is down(silu(gate(x)) * up(x)), which a pass over two tokens proves."""
    names = {name for name, _ in module.named_children()}
    if names != {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return False
    wide = getattr(module.gate_proj, "in_features", None)
    if wide is None:
        return False
    weight = next(module.parameters())
    x = torch.linspace(-1, 2, 2 * wide, device=weight.device, dtype=weight.dtype).view(1, 2, wide)
    with torch.no_grad():
        try:
            theirs, ours = module(x), _mlp(module, x)
        except (TypeError, ValueError, RuntimeError):
            return False
    return torch.equal(theirs, ours)


def _mlp(module: Any, x: Tensor) -> Any:
    gate, up, down = module.gate_proj(x), module.up_proj(x), module.down_proj
    lean = "forward" in down.__dict__ and not down._forward_hooks and not down._forward_pre_hooks
    if lean and type(down) is LoraLinear and _is_on(down):
        return gated_lora(gate, up, *_weights(down))
    return down(gated_silu(gate, up))


def _agrees(model: nn.Module, lean: Lean) -> bool:
    """Returns whether the lean model gives the logits and the adapters' gradients of the model as it is."""
    ids = sample_ids(base_of(model))  # type: ignore[arg-type]
    trained = [p for p in model.parameters() if p.requires_grad]
    factors = torch.linspace(-1, 1, 64, device=ids.device)

    def run() -> tuple[Tensor, Tensor]:
        with torch.autocast(lean.device, dtype=torch.bfloat16, enabled=lean.dtype == torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        wide = logits.float()
        loss = (wide[..., :64] * factors[: wide.shape[-1]]).mean()
        grads = torch.autograd.grad(loss, trained, allow_unused=True)
        return wide.detach(), torch.cat([g.flatten() for g in grads if g is not None])

    with torch.enable_grad(), evaluating(model), torch.random.fork_rng(devices=[]):
        theirs, slopes = run()
        try:
            with lean.on():
                ours, own = run()
        except (AttributeError, TypeError, ValueError, RuntimeError):  # a part that takes no such format
            return False
    close = equal_logits(ours.nan_to_num(), theirs.nan_to_num(), 2 * precision_of(lean.dtype))
    return close and own.shape == slopes.shape and float((own - slopes).norm()) <= 0.1 * float(slopes.norm())


class _ShortAttention(TorchFunctionMode):
    """Runs attention over short rows of bfloat16 in float32: its backward pass in bfloat16 is slower on CPUs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is not F.scaled_dot_product_attention or len(args) < 3 or args[0].shape[-2] > SHORT:
            return func(*args, **named)
        parts: list[Any] = [
            part.float() if isinstance(part, Tensor) and part.is_floating_point() else part for part in args
        ]
        mask = named.get("attn_mask")
        if isinstance(mask, Tensor) and mask.is_floating_point():
            named = {**named, "attn_mask": mask.float()}
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(*parts, **named).to(args[0].dtype)
