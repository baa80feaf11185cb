"""The derivative of every token's NLL along one direction of the weights, by differences or by double backward.

A difference is quick, but wrong where the loss has a kink or a jump within the step: a router of a mixture of experts
picks other experts, a ReLU switches. So it is taken at two lengths of the step. If they disagree, a third length tells
a curve from a kink (Richardson's extrapolation), and where it is a kink, double backward gives the derivative at theta
itself, with the experts that theta chooses.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from foci.focus import Batch
from foci.gradients.perturb import moved, trainable
from foci.models import fsdp
from foci.models.architecture import base_of
from foci.models.losses import token_nll

MOVES = (3e-3, 1e-1, 2e-2)
"""How far the loss that changes most should change in a difference, in nats: at least, at most, and the aim.

On tiny models of seven architectures the relative error was smallest, 1e-4 to 5e-4, for changes of 4e-3 to 5e-2.
"""
MEAN_MOVE = 3.3e-4
"""How far the mean loss should change at most, in nats: the loss that changes most changes 10 to 300 times as much."""
AGREE = 2e-3
"""Most that differences at two lengths, or their extrapolations, may differ, relative to the largest."""
AGREE_SHARDED = 1e-2
"""The same for a model that FSDP2 shards, where there is no double backward."""


def derivative(
    model: nn.Module, batch: Batch, direction: Mapping[str, Tensor], mean: float | None = None
) -> Float[Tensor, "batch seq"]:
    """Returns d nll / d eps of every token at theta + eps * direction, eps = 0, in nats.

    `mean` is the derivative of the mean loss, if it is known: a good first step saves two passes.
    Takes differences where they agree at several lengths of the step (`AGREE`), else double backward. Raises ValueError
    if neither works: the model is sharded, or an operation has no double backward.
    """
    if fsdp.norm(direction) == 0:
        return torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
    found, off = by_differences(model, batch, direction, mean)
    if off <= (AGREE if fsdp.root(model) is None else AGREE_SHARDED):
        return found
    words = (
        f"the losses of {type(base_of(model)).__name__} have a kink or a jump near its weights (differences at two "
        f"lengths disagree by {off:.1g} of the largest), as where a router picks other experts"
    )
    if fsdp.root(model) is not None:
        raise ValueError(f"{words}; the exact way needs whole parameters, take an unsharded model")
    attention = base_of(model).config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise ValueError(
            f"{words}; the exact way needs a double backward pass, for which {attention!r} has no formula: load the "
            "model with attn_implementation='sdpa'"
        )
    try:
        return by_double_backward(model, batch, direction)
    except RuntimeError as error:  # torch: an operation without a second derivative
        raise ValueError(
            f"{words}; the exact way failed ({str(error).partition(chr(10))[0]}): load the model with "
            "experts_implementation='eager' and attn_implementation='eager'"
        ) from error


def by_differences(
    model: nn.Module, batch: Batch, direction: Mapping[str, Tensor], mean: float | None = None
) -> tuple[Float[Tensor, "batch seq"], float]:
    """Returns the derivative from central differences, and how far two of them disagree, relative to the largest.

    D(eps) = (nll(theta + eps v) - nll(theta - eps v)) / (2 eps). Where D(eps) and D(eps / 2) disagree, D(eps / 4) is
    taken too, and (4 D(eps / 2) - D(eps)) / 3 is compared with the same one length below: on a curve, the error of both
    is of fourth order.
    """
    parameters = trainable(model)
    eps = 3e-4 * fsdp.norm({name: parameters[name] for name in direction}) / fsdp.norm(direction)
    if mean:
        eps = min(eps, MEAN_MOVE / abs(mean))
    with moved(model, direction) as move:
        eps, change = _first(model, batch, move, eps)
        once, half = change / (2 * eps), _change(model, batch, move, eps / 2) / eps
        off = _disagree(model, once, half)
        if off <= AGREE:
            return once, off
        quarter = _change(model, batch, move, eps / 4) / (eps / 2)
    above, below = (4 * half - once) / 3, (4 * quarter - half) / 3
    return above, _disagree(model, above, below)


def _disagree(model: nn.Module, one: Tensor, other: Tensor) -> float:
    """Returns the largest difference of two tensors, relative to the largest number."""
    largest = fsdp.largest(model, float(one.abs().max()))
    return fsdp.largest(model, float((one - other).abs().max())) / largest if largest else 0.0


def _first(model: nn.Module, batch: Batch, move: Callable[[float], None], eps: float) -> tuple[float, Tensor]:
    """Returns a step eps, and nll(theta + eps v) - nll(theta - eps v); `move` goes to theta + length * v.

    The first eps is 3e-4 |theta| / |v|, or what `MEAN_MOVE` allows. v may be large on few weights: if the largest
    change of a loss is too small for float32, or too large for a straight line (`MOVES`), eps is corrected and the
    passes are repeated.
    """
    for _ in range(3):
        change = _change(model, batch, move, eps)
        largest = fsdp.largest(model, float(change.abs().max()))
        if largest == 0 or MOVES[0] <= largest <= MOVES[1]:
            return eps, change
        eps *= min(max(MOVES[2] / largest, 1e-3), 1e3)
    return eps, _change(model, batch, move, eps)


def _change(model: nn.Module, batch: Batch, move: Callable[[float], None], eps: float) -> Tensor:
    """Returns nll(theta + eps v) - nll(theta - eps v)."""
    with torch.no_grad():
        move(eps)
        above = token_nll(model, batch)
        move(-eps)
        return above - token_nll(model, batch)


def by_double_backward(model: nn.Module, batch: Batch, direction: Mapping[str, Tensor]) -> Float[Tensor, "batch seq"]:
    """Returns the same derivative exactly: <grad (u . nll), v> is linear in u, and its gradient by u is J v."""
    parameters = trainable(model)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        nll = token_nll(model, batch)
        u = torch.zeros_like(nll, requires_grad=True)
        found = torch.autograd.grad(
            nll, [parameters[name] for name in direction], grad_outputs=u, create_graph=True, allow_unused=True
        )
        along = [(g * v).sum() for g, v in zip(found, direction.values(), strict=True) if g is not None]
        along = [term.to(u.device) for term in along if term.requires_grad]
        return torch.autograd.grad(torch.stack(along).sum(), u)[0] if along else torch.zeros_like(nll)
