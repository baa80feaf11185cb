"""Parts of a model computed with less memory and time while only its adapters train: what `lean` puts in their places.

Each function keeps for its backward pass no more than its inputs and a few small arrays, in the number format of the
forward pass. What can be computed again from them at once (a normalised row, a gate) is not kept. Differentiable once.

    LoRA layer    y = x W^T + s (x A^T) B^T          keeps x and x A^T; W is frozen
    RMSNorm       y = x / sqrt(mean(x^2) + eps) g    keeps x and one number per token; g is frozen
    gated MLP     y = silu(gate) up                  keeps gate and up
"""

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
        flat, dtype = x.reshape(-1, x.shape[-1]), x.dtype
        w, down, up = weight.to(dtype), a.to(dtype), b.to(dtype)
        inner = flat @ down.t()
        y = F.linear(flat, w, None if bias is None else bias.to(dtype))
        y.addmm_(inner, up.t(), alpha=scale)
        ctx.save_for_backward(flat, weight, a, b, inner)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        flat, weight, a, b, inner = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1]).to(ctx.dtype)
        to_inner = (g @ b.to(ctx.dtype)) * ctx.scale
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = g @ weight.to(ctx.dtype)
            to_x = to_x.addmm_(to_inner, a.to(ctx.dtype)).view(ctx.shape)
        to_a = (to_inner.t() @ flat).to(a.dtype) if ctx.needs_input_grad[3] else None
        to_b = (g.t() @ inner).to(b.dtype) * ctx.scale if ctx.needs_input_grad[4] else None
        return to_x, None, None, to_a, to_b, None


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


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
