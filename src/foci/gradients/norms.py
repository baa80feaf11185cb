"""Gradient norms of single examples, block by block, from one backward pass over a batch.

    norms = block_norms(model, batch, loss_mask)        # {"embeddings": (batch,), "layers.0": (batch,), ...}

g_b(x) = ||d L(x) / d theta_b||_2, where L(x) is the mean NLL of example x over its tokens in `loss_mask` and theta_b
the trainable parameters of block b. The method `grad_profile` uses these norms (arXiv 2411.04448).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.focus import Batch
from foci.gradients.factors import precision
from foci.gradients.per_example import Recorder
from foci.models import losses
from foci.models.architecture import block_of, blocks, evaluating, part_of, without_dropout
from foci.models.head import head_of
from foci.models.padding import together

By = Literal["layer", "part"]
Reduction = Literal["mean", "sum"]


def block_norms(
    model: PreTrainedModel | PeftModel,
    batch: Batch,
    loss_mask: Bool[Tensor, "batch seq"],
    *,
    by: By = "layer",
    reduction: Reduction = "mean",
) -> dict[str, Float[Tensor, " batch"]]:
    """Returns the L2 norm of every example's own gradient by block, from bottom to top, in nats per unit of weight.

    An example's loss is the mean (or sum) of the NLL of those tokens in `loss_mask` that have one (`Batch.predicted`).
    Blocks are named by `block_of`, with `by="part"` by `part_of`. Only trainable parameters count: the norms of a LoRA
    model are those of its adapters. Tied weights have one gradient. Relative error against one example at a time: 1e-5
    in float32, 1e-10 in float64, 3e-2 in bfloat16 (autocast around the call).

    Dropout is off; activation checkpointing stays on. The model and its `.grad` are unchanged afterwards. Parameters
    that are used in other ways than linear maps, embedding lookups and norms cost one backward pass per example, and a
    warning names them. Raises ValueError if an example has no token, nothing is trainable, a norm is not finite, or a
    parameter has no known block.
    """
    mask = _checked_mask(batch, loss_mask)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameter that is trained; set requires_grad on some")
    losses.check_readable(model, batch)  # this may run the model, which must not be recorded
    if len(groups := together(model, batch.attention_mask)) > 1:
        parts = [block_norms(model, batch.take(rows), mask[rows], by=by, reduction=reduction) for rows, _ in groups]
        order = torch.cat([rows for rows, _ in groups]).argsort()
        return {
            name: torch.cat([part[name] for part in parts])[order.to(norm.device)] for name, norm in parts[0].items()
        }
    weights = mask.to(precision(next(iter(parameters.values()))))
    if reduction == "mean":
        weights = weights / weights.sum(1, keepdim=True)
    with without_dropout(model), _grads_aside(list(parameters.values())):
        recorder = Recorder(list(parameters.values()), len(mask))
        with recorder.recording(model):
            _backward(model, batch, weights, recorder)
        recorder.finish()
    squares = recorder.squares
    if slow := {name: p for name, p in parameters.items() if p in recorder.unknown}:
        warnings.warn(
            f"{len(slow)} parameters are not used in linear maps, lookups or norms alone, so they cost one backward "
            f"pass per example ({len(mask)}): {', '.join(list(slow)[:4])}{', ...' if len(slow) > 4 else ''}",
            stacklevel=2,
        )
        squares = squares | dict(
            zip(slow.values(), _one_by_one(model, batch, weights, list(slow.values())), strict=True)
        )
    norms = _summed(model, {name: squares[p] for name, p in parameters.items()}, by)
    _check_finite(model, norms)
    return norms


def _check_finite(model: nn.Module, norms: dict[str, Tensor]) -> None:
    finite = torch.stack(list(norms.values())).isfinite().all(0)
    if not bool(finite.all()):
        raise ValueError(
            f"gradient norms of {type(model).__name__} must be finite, got others in rows "
            f"{(~finite).nonzero().flatten().tolist()[:8]} of {len(finite)}; if the model's logits are NaN at padding "
            "(eager attention with a sliding window in float64), give rows of one length, else look at its weights"
        )


def _checked_mask(batch: Batch, loss_mask: Tensor) -> Tensor:
    """Returns where a token counts. Raises ValueError for a wrong shape or an example without such a token."""
    if loss_mask.shape != batch.input_ids.shape:
        raise ValueError(
            f"loss_mask must have the batch's shape {tuple(batch.input_ids.shape)}, got {tuple(loss_mask.shape)}"
        )
    mask = batch.predicted() & loss_mask
    if empty := (~mask.any(1)).nonzero().flatten().tolist():
        raise ValueError(
            f"every example needs a token in loss_mask that has an NLL (labelled, after a real token), got none in "
            f"rows {empty[:8]} of {len(mask)}; leave them out"
        )
    return mask


def _backward(model: PreTrainedModel | PeftModel, batch: Batch, weights: Tensor, recorder: Recorder) -> None:
    """Runs the model to the LM head, then head and loss for some examples at a time, then one backward pass for all."""
    with torch.enable_grad():
        with recorder.trunk():
            hidden = losses.hidden_states(model, batch)
        grad = torch.zeros_like(hidden)
        for examples, tokens in _groups(weights, losses.vocabulary(head_of(model))):
            with recorder.head(examples):
                for some in tokens:
                    _head_backward(model, batch, weights, hidden.detach(), grad, (examples, some))
        if hidden.requires_grad:
            hidden.backward(grad)


def _groups(weights: Tensor, vocabulary: int) -> Iterator[tuple[slice, Sequence[Tensor]]]:
    """Yields examples that go through the head together, and their tokens (examples, token), in parts.

    A part has at most `SLICE_ELEMENTS` logits. Shorter examples are filled up with tokens of weight 0.
    """
    limit = max(1, losses.SLICE_ELEMENTS // vocabulary)
    counts = (weights > 0).sum(1).tolist()
    ordered = (weights == 0).int().argsort(dim=1, stable=True)
    start = 0
    while start < len(counts):
        end = start + 1
        while end < len(counts) and (end + 1 - start) * max(counts[start : end + 1]) <= limit:
            end += 1
        yield slice(start, end), ordered[start:end, : max(counts[start:end])].split(limit, 1)
        start = end


def _head_backward(
    model: nn.Module, batch: Batch, weights: Tensor, hidden: Tensor, grad: Tensor, chosen: tuple[slice, Tensor]
) -> None:
    """Adds to `grad` the gradient of the chosen tokens' loss with respect to the hidden states that predict them."""
    examples, tokens = chosen
    before = (tokens - 1).clamp(min=0)[..., None].expand(-1, -1, hidden.shape[2])
    read = hidden[examples].gather(1, before).requires_grad_()
    nll = losses.logits_nll(head_of(model).logits(read), batch.labels[examples].gather(1, tokens))
    (nll * weights[examples].gather(1, tokens)).sum().backward()
    assert read.grad is not None
    grad[examples].scatter_add_(1, before, read.grad)


def _one_by_one(
    model: PreTrainedModel | PeftModel, batch: Batch, weights: Tensor, parameters: Sequence[nn.Parameter]
) -> list[Tensor]:
    """Returns the squared norms of each parameter's gradient, from one backward pass per example."""
    found = []
    with evaluating(model), torch.enable_grad():
        for n in range(len(weights)):
            nll = losses.token_nll(model, batch.take([n]), weights[n : n + 1] > 0)
            grads = torch.autograd.grad((nll * weights[n]).sum(), parameters, allow_unused=True)
            found.append(
                [torch.zeros((), device=p.device) if g is None else g.to(precision(g)).square().sum()
                 for p, g in zip(parameters, grads, strict=True)]
            )  # fmt: skip
    return [torch.stack(column) for column in zip(*found, strict=True)]


def _summed(model: nn.Module, squares: dict[str, Tensor], by: By) -> dict[str, Tensor]:
    order = {block: n for n, block in enumerate(blocks(model))}
    name_of = block_of if by == "layer" else part_of
    total: dict[str, Tensor] = {}
    for name in sorted(squares, key=lambda name: order[block_of(name)]):
        block = name_of(name)
        total[block] = total[block] + squares[name] if block in total else squares[name]
    return {block: square.sqrt() for block, square in total.items()}


@contextmanager
def _grads_aside(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Removes `.grad` of the parameters while open; afterwards each has its own again."""
    before = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    try:
        yield
    finally:
        for p, grad in zip(parameters, before, strict=True):
            p.grad = grad
