"""What a model's numbers are, computed slowly: one row at a time, without padding, from the model's own logits."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from foci.focus import Row

RATE = 1e-2


def logits(model: torch.nn.Module, ids: Sequence[int]) -> Tensor:
    """(token, vocab) of one row."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def nll(model: torch.nn.Module, row: Row) -> Tensor:
    """The NLL of every token but the first."""
    ids = torch.tensor(row.input_ids[1:])
    return -logits(model, row.input_ids)[:-1].log_softmax(-1).gather(1, ids[:, None])[:, 0]


def losses(model: torch.nn.Module, rows: Sequence[Row]) -> Tensor:
    """The NLL of all rows, one after another; 0 at first tokens."""
    with torch.no_grad():
        return torch.cat([torch.cat([torch.zeros(1), nll(model, row)]) for row in rows])


def gradient(model: torch.nn.Module, rows: Sequence[Row], weights: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """The gradient of sum(w nll) / sum(w), by parameter."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = weights or [torch.ones(len(row) - 1) for row in rows]
    total = sum((w * nll(model, row)).sum() for w, row in zip(weights, rows, strict=True)) / sum(
        w.sum() for w in weights
    )
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found, strict=True)}


def norms(model: torch.nn.Module, row: Row, block_of) -> dict[str, float]:
    """The norm of the gradient of a row's mean NLL, by block."""
    squares: dict[str, float] = {}
    for name, g in gradient(model, [row]).items():
        squares[block_of(name)] = squares.get(block_of(name), 0.0) + float(g.double().square().sum())
    return {block: square**0.5 for block, square in squares.items()}


def greedy(model: torch.nn.Module, ids: Sequence[int], count: int) -> list[int]:
    """The next tokens, each from the whole row before it."""
    made = list(ids)
    with torch.no_grad():
        for _ in range(count):
            made.append(int(logits(model, made)[-1].argmax()))
    return made[len(ids) :]


def received(model: PreTrainedModel, row: Row, layers: Sequence[int]) -> Tensor | None:
    """What each token receives, from Transformers' eager maps; None where it returns none."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        maps = eager(input_ids=torch.tensor([row.input_ids]), output_attentions=True, use_cache=False).attentions
    maps = [one for one in maps or [] if isinstance(one, Tensor) and one.ndim == 4]
    if len(maps) > len(layers):
        maps = [maps[layer] for layer in layers]
    n = len(row)
    if len(maps) != len(layers) or any(one.shape[2:] != (n, n) for one in maps):
        return None
    mean = torch.stack([one[0].mean(0) for one in maps]).mean(0)
    return torch.stack([mean[j:, j].mean() for j in range(n)])


@sdpa_kernel(SDPBackend.MATH)
def influence(model: torch.nn.Module, rows: Sequence[Row], later: Sequence[Row]) -> Tensor:
    """d(later loss) / d(weight of each token) through one SGD step, by double backward; all weights are 1."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = [torch.ones(len(row) - 1, requires_grad=True) for row in rows]
    loss = sum((w * nll(model, row)).sum() / w.sum() for w, row in zip(weights, rows, strict=True)) / len(rows)
    found = torch.autograd.grad(loss, list(named.values()), create_graph=True, allow_unused=True)
    moved = {name: p - RATE * g for (name, p), g in zip(named.items(), found, strict=True) if g is not None}

    def after(row: Row) -> Tensor:
        ids = torch.tensor([row.input_ids])
        out = functional_call(model, moved, args=(), kwargs={"input_ids": ids, "use_cache": False}).logits[0]
        return -out[:-1].log_softmax(-1).gather(1, ids[0, 1:, None]).mean()

    total = sum(after(row) for row in later) / len(later)
    grads = torch.autograd.grad(total, weights)
    return torch.cat([torch.cat([torch.zeros(1), g]) for g in grads])
