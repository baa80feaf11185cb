"""The derivative of a later (outer) loss by each token's weight, from first-order passes alone.

Given one inner step on the weighted loss of a batch, theta' = theta - lr * u(g), g = grad L(theta, w), and a later loss
L_T. With v = du/dg * grad L_T(theta') and the alignments j_i = <grad nll_i(theta), v> of all tokens (nats squared),

    dL_T / dw_i = -(lr / W) (j_i - sum_k w_k j_k / W)         W = sum w, over the batch or over the token's row
    dL_T / dw_i = -(lr / N) j_i                               not normalised; N = tokens of the batch

All j together are one Jacobian-vector product of the per-token losses along v. It needs no double backward and no graph
through the step (arXiv 2407.16920 differentiates through the step). The rows of a batch share one step.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from foci.config.values import Inner, Normalise
from foci.focus import Batch
from foci.gradients.directional import derivative
from foci.gradients.inner_step import InnerStep
from foci.gradients.perturb import gradients, moved, trainable
from foci.models import fsdp
from foci.models.architecture import base_of, without_dropout
from foci.models.losses import token_nll

Mode = Literal["difference", "unroll"]
Later = Batch | Callable[[nn.Module], Tensor]  # the later loss: that of a batch, or any function of the model
LATER = "later"
"""Column of a later batch: the factor of each token's NLL in the later loss."""


def token_influence(  # noqa: PLR0913
    model: nn.Module,
    batch: Batch,
    later_batch: Later,
    weights: Float[Tensor, "batch seq"],
    *,
    lr: float,
    mode: Mode = "difference",
    inner: Inner = "sgd",
    normalise: Normalise = "row",
) -> Float[Tensor, "batch seq"]:
    """Returns d(later loss) / d(weight) of every token of `batch`, in nats per unit of weight. Below 0: weight helps.

    One `InnerStep(lr, inner, normalise)` changes the trainable parameters (all weights or an adapter); then the later
    loss is taken, `later_loss(model, later_batch)`. `later_batch` may also be a function of the model that returns a
    loss in nats. The influence is 0 where a token has no NLL and, if weights are normalised, in rows without weight.
    Dropout is off; the model stays as it was.

    `mode` "difference": forward passes at theta +- eps v and theta +- eps v / 2, any attention, float32, relative error
    about 1e-3. Where the two disagree (a router picks other experts, a ReLU switches), the derivative at theta is taken
    by double backward, which needs sdpa or eager attention. "unroll": double backward through the step, the exact
    reference for comparison, slower, sdpa or eager attention.
    Source: the meta-gradient of arXiv 2407.16920, section 3. Raises ValueError if the mode cannot work with the model
    (before anything runs), if nothing is trainable, if no token has weight, or if the later batch has no label.

    A model that FSDP2 shards (`fully_shard`, called last on the whole model) takes "difference" alone. Every process
    must pass the same batches and weights, else ValueError, and gets the influence that one process alone would get.
    A model on several devices works as it is. Of an offloaded model (accelerate), the trainable parameters must be in
    memory.
    """
    step = InnerStep(lr, inner, normalise)
    check_mode(model, mode)
    if mode == "unroll":
        return _unrolled(model, batch, later_batch, checked_weights(batch, weights), step)
    found = gradient_alignment(model, batch, later_batch, weights, step)
    return step.influence(found, checked_weights(batch, weights), batch.predicted())


def gradient_alignment(
    model: nn.Module,
    batch: Batch,
    later_batch: Later,
    weights: Float[Tensor, "batch seq"],
    step: InnerStep,
) -> Float[Tensor, "batch seq"]:
    """Returns j_i = <grad nll_i(theta), du/dg * grad later loss(theta')> of every token, in nats squared.

    It is per unit of the step's rate, and above 0 where training on the token alone lowers the later loss. Arguments
    and errors as in `token_influence`.
    """
    check_mode(model, "difference")
    fsdp.check_same(model, **_inputs_of(batch, weights, step), **_inputs_of(later_batch, prefix="later "))
    weights = checked_weights(batch, weights)
    with deterministic(model):
        direction, slopes = _direction(model, batch, later_batch, weights, step)
        mean = _along(model, direction, slopes)
        found = derivative(model, batch, direction, mean)
    _check_gradients(model, found, mean, step.loss(found, weights, batch.predicted()))
    return found


def targets(alignment: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
    """Returns max(j, 0) / max over the row: 1 on the token whose step helps the later loss most, 0 where it does not.

    >>> targets(torch.tensor([[-1.0, 0.5, 2.0], [-1.0, -2.0, 0.0]]))
    tensor([[0.0000, 0.2500, 1.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    positive = alignment.clamp(min=0)
    largest = positive.amax(1, keepdim=True)
    return positive / torch.where(largest > 0, largest, torch.ones_like(largest))


def check_mode(model: nn.Module, mode: Mode) -> None:
    """Raises ValueError if a mode cannot work with the model's attention, number format or sharding."""
    if mode not in ("difference", "unroll"):
        raise ValueError(f"mode is 'difference' or 'unroll', got {mode!r}")
    fsdp.check(model)
    parameters = trainable(model)
    if dora := [name for name, m in model.named_modules() if len(getattr(m, "lora_magnitude_vector", ()))]:
        raise ValueError(
            f"influence needs gradients that are the derivatives of the losses, got {len(dora)} layers with DoRA, "
            f"{dora[0]!r} first, whose norm PEFT leaves out of the gradient (up to 9 % off); use lora or rslora, or "
            "the model without its adapter"
        )
    if mode != "difference" and fsdp.root(model) is not None:
        raise ValueError(
            f"mode {mode!r} differentiates with respect to whole parameters, got {type(base_of(model)).__name__} "
            "sharded by FSDP2, which keeps parts; use mode='difference'"
        )
    attention = base_of(model).config._attn_implementation
    if mode != "difference" and attention not in ("sdpa", "eager"):
        raise ValueError(
            f"mode {mode!r} differentiates attention in a way that {attention!r} has no formula for; use "
            "mode='difference', which takes any attention, or load the model with attn_implementation='sdpa'"
        )
    half = sorted({str(p.dtype) for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)})
    if half and mode == "difference":
        raise ValueError(
            f"mode 'difference' subtracts losses that differ in their last digits, which {', '.join(half)} weights "
            f"lose (of {len(parameters)} trainable ones and the rest); load the model in float32"
        )


@contextmanager
def deterministic(model: nn.Module) -> Iterator[None]:
    """Switches off dropout and autocast, and prepares a sharded model (`fsdp.head_callable`), while open."""
    accelerator = torch.accelerator.current_accelerator()
    with ExitStack() as stack:
        stack.enter_context(without_dropout(model))
        for kind in {"cpu", "cpu" if accelerator is None else accelerator.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(fsdp.head_callable(model))
        yield


def _inputs_of(
    batch: Later, weights: Tensor | None = None, step: InnerStep | None = None, prefix: str = ""
) -> dict[str, Tensor]:
    """Returns the tensors that decide a loss and a step on it, by name; none for a loss that is a function."""
    if not isinstance(batch, Batch):
        return {}
    found = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
    found[LATER] = batch.columns.get(LATER, torch.empty(0))
    found |= {} if weights is None else {"weights": weights}
    found |= {} if step is None else {"step": torch.tensor(list(repr(step).encode()))}
    return {prefix + name: value for name, value in found.items()}


def checked_weights(batch: Batch, weights: Tensor) -> Tensor:
    """Returns the weights, 0 where a token has no NLL. Raises ValueError for a wrong shape or bad values."""
    if weights.shape != batch.input_ids.shape:
        raise ValueError(
            f"weights must have the batch's shape {tuple(batch.input_ids.shape)}, got {tuple(weights.shape)}"
        )
    counted = weights.detach() * batch.predicted()
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()) or not bool(counted.sum() > 0):
        raise ValueError(
            "weights must be finite and at least 0, and some above 0, got "
            f"{weights.min().item()} to {weights.max().item()} "
            f"with a sum of {counted.sum().item()} on the {int(batch.predicted().sum())} tokens that have an NLL"
        )
    return counted


def later_loss(model: nn.Module, later: Later) -> Float[Tensor, ""]:
    """Returns the later loss in nats: of a batch, the mean NLL of its labels by row, then over rows.

    With a column `later` it is sum(column * NLL). Raises ValueError if the batch has no label to predict.
    """
    if not isinstance(later, Batch):
        return later(model)
    asked = later.predicted()
    if not bool(asked.any()):
        raise ValueError("the later batch needs labels to predict, got none; keep the labels of the answer")
    nll = token_nll(model, later)
    if LATER in later.columns:
        return (nll * later.columns[LATER]).sum()
    return InnerStep().loss(nll, asked.to(nll.dtype), asked)


@contextmanager
def stepped(
    model: nn.Module, batch: Batch, weights: Float[Tensor, "batch seq"], step: InnerStep
) -> Iterator[dict[str, Tensor]]:
    """Takes the inner step, theta' = theta - lr u(g), while open; afterwards the weights are theta again.

    Yields g by parameter (empty for a step of no length). Raises ValueError if processes that share a sharded model
    pass different batches, weights or steps.
    """
    weights = weights.detach()
    fsdp.check_same(model, **_inputs_of(batch, weights, step))
    found: dict[str, Tensor] = {}
    if step.lr or step.length or step.kind == "adam":
        parameters = trainable(model)
        with deterministic(model):
            found = gradients(model, step.loss(token_nll(model, batch), weights, batch.predicted()), parameters)
    updates = {name: step.update(g) for name, g in found.items()}
    rate = step.lr if step.length is None else step.length / max(fsdp.norm(updates), 1e-30)
    with moved(model, updates, -rate):
        yield found


def _direction(
    model: nn.Module, batch: Batch, later: Later, weights: Tensor, step: InnerStep
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns v = du/dg * the gradient of the later loss at theta', and g, by parameter."""
    parameters = trainable(model)
    with stepped(model, batch, weights, step) as slopes_at:
        found = gradients(model, later_loss(model, later), parameters)
    if step.kind == "adam":
        found = {name: v * step.slope(slopes_at[name]) for name, v in found.items() if name in slopes_at}
    return found, slopes_at


def _along(model: nn.Module, direction: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> float | None:
    """Returns the derivative of the inner loss along a direction, by its gradient; None in a sharded model."""
    if not slopes or fsdp.root(model) is not None:
        return None
    return sum(
        float((slopes[name].double() * along.double()).sum()) for name, along in direction.items() if name in slopes
    )


def _check_gradients(model: nn.Module, found: Tensor, said: float | None, expected: Tensor) -> None:
    """Raises ValueError if the model's gradients are not the derivatives of its losses.

    `expected` is the inner loss of the alignments `found`. The inner loss is linear in the NLL of tokens, so it equals
    `said`, <gradient of the inner loss, direction>, where gradients are right. Layers that detach a part of what they
    compute, or that round and hand gradients through, are wrong without an error.
    """
    if said is None:
        return
    if abs(said - float(expected)) <= 2e-2 * abs(said) + 5e-3 * float(found.abs().max()):
        return
    raise ValueError(
        f"the gradients of {type(base_of(model)).__name__} are not the derivatives of its losses: a step changes the "
        f"loss by {float(expected):.3g} nats per unit, its gradient says {said:.3g}; a layer detaches or rounds a part "
        "of what it computes, so influence cannot be told; take the model or adapter without that layer"
    )


class _LaterGradient(nn.Module):
    """The gradient of the later loss as one call, so that recomputed activations see the same weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, later: Later, weights: Tensor) -> Tensor:
        return torch.autograd.grad(later_loss(self.model, later), weights)[0]


def _unrolled(model: nn.Module, batch: Batch, later: Later, weights: Tensor, step: InnerStep) -> Tensor:
    """Returns the influence by double backward through the step."""
    parameters = trainable(model)
    weights = weights.detach().clone().requires_grad_()
    with deterministic(model), sdpa_kernel(SDPBackend.MATH):
        loss = step.loss(token_nll(model, batch), weights, batch.predicted())
        found = torch.autograd.grad(loss, list(parameters.values()), create_graph=True, allow_unused=True)
        moved = {
            f"model.{name}": p - step.lr * step.update(g)
            for (name, p), g in zip(parameters.items(), found, strict=True)
            if g is not None
        }
        influence = functional_call(_LaterGradient(model), moved, (later, weights))
    return influence.detach() * batch.predicted()
