"""The alignments and steps of many documents at the same time: every row of a batch takes a step of its own.

`foci.gradients.influence` takes one step for a whole batch, so documents that shall not share a step go one by one.
Here each row b has its own change of every trainable matrix, y_b = W x_b + D_b x_b, added by a hook on the linear map.
D_b is a leaf of its own, so one backward pass gives the gradient of every row, and one forward pass moves every row
along its own direction. Each row costs memory for its own copy of what is trained, so this is for adapters.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foci.focus import Batch
from foci.gradients.directional import AGREE, MOVES
from foci.gradients.influence import check_mode, deterministic, gradient_alignment
from foci.gradients.inner_step import InnerStep
from foci.gradients.perturb import trainable
from foci.models import fsdp
from foci.models.architecture import base_of
from foci.models.losses import check_readable, token_nll

Changes = Mapping[str, Tensor]
"""By parameter: what is added to it for each row, (rows, *shape of the parameter)."""
ROUNDING = 1e-2
"""Most that two extrapolations of a row's differences may differ, relative to its largest; else it is computed alone.

Rounding alone makes differences at two lengths differ by 5e-4 to 1.4e-3 in a deep model (SmolLM2-135M, float32, CPU),
and extrapolations by more; a kink makes tens of percent.
"""


def alignments(
    model: nn.Module, batch: Batch, later: Batch, weights: Float[Tensor, "batch seq"], step: InnerStep
) -> Float[Tensor, "batch seq"]:
    """Returns `gradient_alignment` of every row by itself, in nats squared: row b of `batch` with row b of `later`.

    A row whose losses have a kink near the weights is computed alone, exactly. Raises ValueError where `check` does, or
    the two batches have different numbers of rows.
    """
    _check(model, batch, later)
    with deterministic(model):
        moved, slopes = _stepped(model, batch, weights, step)
        direction = _gradients(model, moved, lambda: _later(model, later))
        if step.kind == "adam":
            direction = {name: v * step.slope(slopes[name]) for name, v in direction.items()}
        found, sure = _derivatives(model, batch, direction)
    said = sum((slopes[name] * v).flatten(1).sum(1) for name, v in direction.items())
    expected = _inner(found, batch, weights, step)
    sure &= (said - expected).abs() <= 2e-2 * torch.as_tensor(said).abs() + 5e-3 * found.abs().amax(1)
    for row in (~sure).nonzero().flatten().tolist():
        one, task = _row(batch, row), _row(later, row)
        found[row] = gradient_alignment(model, one, task, weights[row : row + 1], step)[0]
    return found


def later_losses(
    model: nn.Module, batch: Batch, later: Batch, weights: Float[Tensor, "batch seq"], step: InnerStep
) -> Float[Tensor, " batch"]:
    """Returns each row's later loss in nats after a step on that row of `batch` alone; the model stays as it was.

    Raises ValueError where `check` does, or the two batches have different numbers of rows.
    """
    _check(model, batch, later)
    with deterministic(model):
        moved, _ = _stepped(model, batch, weights, step)
        with torch.no_grad(), _changed(model, moved):
            return _later(model, later)


def check(model: nn.Module) -> None:
    """Raises ValueError where rows cannot take steps of their own: something else than linear maps is trained."""
    check_mode(model, "difference")
    if fsdp.root(model) is not None:
        raise ValueError(f"rows take steps of their own in whole models, got {type(base_of(model)).__name__} sharded")
    own = {f"{name}.weight" for name, module in model.named_modules() if type(module) is nn.Linear}
    if others := sorted(set(trainable(model)) - own):
        raise ValueError(
            f"rows take steps of their own where linear maps alone are trained, got {len(others)} other parameters, "
            f"{others[0]!r} first; give the learner an adapter (learner: {{type: lora}}), or set step.batch_size: 1"
        )


def _check(model: nn.Module, batch: Batch, later: Batch) -> None:
    check(model)
    for some in (batch, later):
        check_readable(model, some)  # the first call runs the model on a row of its own
    if len(batch.input_ids) != len(later.input_ids) or not bool(later.predicted().any(1).all()):
        raise ValueError(
            f"each document needs one later task with an answer, got {len(batch.input_ids)} documents and "
            f"{int(later.predicted().any(1).sum())} tasks that have one"
        )


def _row(batch: Batch, row: int) -> Batch:
    """Returns one row as a batch, with its padding."""
    one = slice(row, row + 1)
    return replace(
        batch,
        input_ids=batch.input_ids[one],
        attention_mask=batch.attention_mask[one],
        labels=batch.labels[one],
        columns={},
    )


@contextmanager
def _changed(model: nn.Module, changes: Changes) -> Iterator[None]:
    """Adds each row's own change to the trainable matrices while open."""
    modules = dict(model.named_modules())

    def hook(change: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            (inputs,) = given
            if inputs.ndim != 3 or inputs.shape[0] != change.shape[0]:
                raise ValueError(
                    f"rows take steps of their own where every linear map reads (rows, tokens, width), got "
                    f"{tuple(inputs.shape)} for {change.shape[0]} rows; set step.batch_size: 1"
                )
            return output + inputs @ change.mT

        return add

    with ExitStack() as stack:
        for name, change in changes.items():
            handle = modules[name.removesuffix(".weight")].register_forward_hook(hook(change))
            stack.callback(handle.remove)
        yield


def _gradients(model: nn.Module, at: Changes, losses: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Returns each row's gradient of its own loss, at the weights that its changes make."""
    leaves = {name: change.detach().requires_grad_() for name, change in at.items()}
    with torch.enable_grad(), _changed(model, leaves):
        found = torch.autograd.grad(losses().sum(), list(leaves.values()), materialize_grads=True, allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def _stepped(
    model: nn.Module, batch: Batch, weights: Tensor, step: InnerStep
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns what one step on its own weighted loss changes for each row, and the gradients of those losses."""
    rows = len(batch.input_ids)
    start = {name: p.new_zeros(rows, *p.shape) for name, p in trainable(model).items()}
    slopes = _gradients(model, start, lambda: _inner(token_nll(model, batch), batch, weights, step))
    updates = {name: step.update(g) for name, g in slopes.items()}
    rates = torch.full((rows,), step.lr, device=batch.input_ids.device)
    if step.length is not None:
        rates = step.length / _norms(updates).clamp(min=1e-30)
    return {name: -rates[:, None, None] * u for name, u in updates.items()}, slopes


def _norms(changes: Changes) -> Float[Tensor, " batch"]:
    """Returns the L2 norm of each row's change over all parameters."""
    return torch.stack([change.flatten(1).square().sum(1) for change in changes.values()]).sum(0).sqrt()


def _inner(nll: Tensor, batch: Batch, weights: Tensor, step: InnerStep) -> Float[Tensor, " batch"]:
    """Returns the loss of each row's step, as `InnerStep.loss` of that row alone."""
    counted = batch.predicted()
    weights = weights * counted
    sums = counted.sum(1).to(nll.dtype) if step.normalise == "none" else weights.sum(1)
    return (weights * nll).sum(1) / torch.where(sums > 0, sums, torch.ones_like(sums))


def _later(model: nn.Module, later: Batch) -> Float[Tensor, " batch"]:
    """Returns the mean NLL of each row's labels."""
    asked = later.predicted()
    return (token_nll(model, later) * asked).sum(1) / asked.sum(1)


def _derivatives(model: nn.Module, batch: Batch, direction: Changes) -> tuple[Tensor, Tensor]:
    """Returns d nll / d eps of every token along its row's direction, and which rows' differences agree.

    As `foci.gradients.directional.by_differences`, with a step eps for each row.
    """
    norms = _norms(direction)
    size = fsdp.norm({name: p.detach() for name, p in trainable(model).items()})

    def change(eps: Tensor) -> Tensor:
        def at(sign: int) -> Tensor:
            with _changed(model, {name: sign * eps[:, None, None] * v for name, v in direction.items()}):
                return token_nll(model, batch)

        with torch.no_grad():
            return at(1) - at(-1)

    eps = torch.where(norms > 0, 3e-4 * size / norms.clamp(min=1e-30), torch.zeros_like(norms))
    once = change(eps)
    for _ in range(3):
        largest = once.abs().amax(1)
        off = (largest > 0) & ((largest < MOVES[0]) | (largest > MOVES[1]))
        if not bool(off.any()):
            break
        eps = torch.where(off, eps * (MOVES[2] / largest).clamp(1e-3, 1e3), eps)
        once = change(eps)
    width = torch.where(eps > 0, eps, torch.ones_like(eps))[:, None]
    full, half = once / (2 * width), change(eps / 2) / width
    straight = _disagree(full, half) <= AGREE
    if bool(straight.all()):
        return full, straight
    quarter = change(eps / 4) * 2 / width
    above, below = (4 * half - full) / 3, (4 * quarter - half) / 3
    return torch.where(straight[:, None], full, above), straight | (_disagree(above, below) <= ROUNDING)


def _disagree(one: Tensor, other: Tensor) -> Float[Tensor, " batch"]:
    """Returns the largest difference in each row, relative to the row's largest number."""
    largest = one.abs().amax(1)
    return (one - other).abs().amax(1) / torch.where(largest > 0, largest, torch.ones_like(largest))
