"""Parts of a model computed with less memory and time while only its adapters train: what `lean` puts in their places.

Each function keeps for its backward pass no more than its inputs and a few small arrays, in the number format of the
forward pass. What can be computed again from them at once (a normalised row, a gate) is not kept. Differentiable once.

    LoRA layer    y = x W^T + s (x A^T) B^T          keeps x and x A^T; W is frozen
    RMSNorm       y = x / sqrt(mean(x^2) + eps) g    keeps x and one number per token; g is frozen
    gated MLP     y = silu(gate) up                  keeps gate and up
    LoRA on that  y of the first line, x as in the third: keeps gate, up and x A^T
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def lora_linear(
    x: Float[Tensor, "... wide"],
    weight: Float[Tensor, "out wide"],
    bias: Float[Tensor, " out"] | None,
    a: Float[Tensor, "rank wide"],
    b: Float[Tensor, "out rank"],
    scale: float,
    dtype: torch.dtype,
) -> Float[Tensor, "... out"]:
    """Returns x W^T + bias + scale (x A^T) B^T in `dtype`; gradients reach x, A and B, not the frozen W and bias."""
    y: Tensor = _LoraLinear.apply(x.to(dtype), weight, bias, a, b, scale)
    return y


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        y, inner = _forward(flat, weight, bias, a, b, scale)
        ctx.save_for_backward(flat, weight, a, b, inner)
        ctx.scale, ctx.shape = scale, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        flat, *kept = ctx.saved_tensors
        needs_x, _, _, *needs, _ = ctx.needs_input_grad
        to_x, to_a, to_b = _backward(gradient, flat, kept, ctx.scale, (needs_x, *needs))
        return None if to_x is None else to_x.view(ctx.shape), None, None, to_a, to_b, None


def _forward(
    flat: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns the layer's output and x A^T, both for (token, wide) rows, in their number format."""
    dtype = flat.dtype
    inner = flat @ a.to(dtype).t()
    y = F.linear(flat, weight.to(dtype), None if bias is None else bias.to(dtype))
    return y.addmm_(inner, b.to(dtype).t(), alpha=scale), inner


def _backward(
    gradient: Tensor, flat: Tensor, kept: Sequence[Tensor], scale: float, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Returns the gradients of x, (token, wide), of A and of B, each where `needs` says so.

    `kept` are W, A, B and x A^T.
    """
    (weight, a, b, inner), dtype = kept, flat.dtype
    g = gradient.reshape(-1, gradient.shape[-1]).to(dtype)
    to_inner = (g @ b.to(dtype)) * scale
    to_x = (g @ weight.to(dtype)).addmm_(to_inner, a.to(dtype)) if needs[0] else None
    to_a = (to_inner.t() @ flat).to(a.dtype) if needs[1] else None
    to_b = (g.t() @ inner).to(b.dtype) * scale if needs[2] else None
    return to_x, to_a, to_b


def rms_norm(
    x: Float[Tensor, "... wide"], gain: Float[Tensor, " wide"], eps: float, dtype: torch.dtype
) -> Float[Tensor, "... wide"]:
    """Returns x / sqrt(mean(x^2) + eps) * gain, computed in float32 or better, in `dtype`."""
    y: Tensor = _RmsNorm.apply(x, gain, eps, dtype)
    return y


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        full = _full(x)
        inverse = full.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        return (full * inverse).mul_(gain).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gain, inverse = ctx.saved_tensors
        g = _full(gradient) * gain
        normal = _full(x) * inverse
        shared = (g * normal).mean(-1, keepdim=True)
        return g.sub_(normal.mul_(shared)).mul_(inverse).to(x.dtype), None, None, None


def gated_silu(gate: Float[Tensor, "..."], up: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Returns silu(gate) * up."""
    y: Tensor = _GatedSilu.apply(gate, up)
    return y


class _GatedSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        to_gate: Tensor = torch.ops.aten.silu_backward(gradient * up, gate)
        return to_gate, gradient * F.silu(gate)


def gated_lora(
    gate: Float[Tensor, "... wide"],
    up: Float[Tensor, "... wide"],
    weight: Float[Tensor, "out wide"],
    bias: Float[Tensor, " out"] | None,
    a: Float[Tensor, "rank wide"],
    b: Float[Tensor, "out rank"],
    scale: float,
) -> Float[Tensor, "... out"]:
    """Returns `lora_linear` of `gated_silu`, in the number format of `gate`, without keeping the latter's result."""
    y: Tensor = _GatedLora.apply(gate, up, weight, a, b, scale)
    return y if bias is None else y + bias.to(y.dtype)


class _GatedLora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gate: Tensor,
        up: Tensor,
        weight: Tensor,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        flat = F.silu(gate).mul_(up).reshape(-1, gate.shape[-1])
        y, inner = _forward(flat, weight, None, a, b, scale)
        ctx.save_for_backward(gate, up, weight, a, b, inner)
        ctx.scale = scale
        return y.view(*gate.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gate, up, *kept = ctx.saved_tensors
        silu = F.silu(gate)
        flat = (silu * up).reshape(-1, gate.shape[-1])
        to_x, to_a, to_b = _backward(gradient, flat, kept, ctx.scale, (True, *ctx.needs_input_grad[3:5]))
        assert to_x is not None
        to_x = to_x.view(gate.shape)
        to_gate = torch.ops.aten.silu_backward(to_x * up, gate)
        return to_gate, silu.mul_(to_x), None, to_a, to_b, None


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
