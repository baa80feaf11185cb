"""The change of weights that training made, scaled or pruned. Share 0 is the start and 1 the model, bit for bit."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from foci.slide.settings import How


def scaled(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Returns start + share * (end - start).

    >>> scaled(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]), 0.5)
    tensor([2., 2.])
    """
    return _ends(start, end, share, lambda: start + share * (end - start))


def pruned(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Returns `start` with a share of the entries of the change, those with the largest FAPM score (arXiv 2509.08255).

    With dW = end - start, the score of an entry is |dW| - mean|start| * |dW| / |start|: a change counts less where the
    weight was small beside the mean of its matrix. An entry whose weight was 0 has the lowest score. Of n entries,
    round(share * n) are kept, the first of equals.
    """
    return _ends(start, end, share, lambda: _pruned(start, end, share))


def _pruned(start: Tensor, end: Tensor, share: float) -> Tensor:
    size, weight = (end - start).abs().flatten(), start.abs().flatten()
    score = size - weight.mean() * size / weight
    score = torch.where(weight > 0, score, torch.full_like(score, -torch.inf))
    kept = score.argsort(descending=True, stable=True)[: round(share * score.numel())]
    made = start.flatten().clone()
    made[kept] = end.flatten()[kept]
    return made.view_as(start)


def _ends(start: Tensor, end: Tensor, share: float, between: Callable[[], Tensor]) -> Tensor:
    """Returns the ends themselves at 0 and 1: start + (end - start) is not always `end` in floating point."""
    if share in (0, 1):
        return end.clone() if share else start.clone()
    return between()


class Slider:
    """A model whose weights can be set to any share of the change from its own weights to those of another model.

    Weights that are equal in both are left alone. Raises ValueError where the two have other weights by name or shape.
    """

    def __init__(self, model: nn.Module, end: Mapping[str, Tensor], how: How) -> None:
        own = dict(model.named_parameters())
        odd = sorted(name for name in own.keys() | end.keys() if _shape(own, name) != _shape(end, name))
        if odd:
            raise ValueError(
                f"the two models have other weights: {odd[0]} has shape {_shape(own, odd[0])} at the start and "
                f"{_shape(end, odd[0])} at the end; give the model that was trained from this start"
            )
        self.model, self.make = model, scaled if how == "scale" else pruned
        changed = [name for name in own if not torch.equal(own[name].detach(), end[name])]
        self.start = {name: own[name].detach().clone() for name in changed}
        self.end = {name: end[name].detach() for name in changed}

    def move(self, share: float) -> None:
        """Sets the model's weights to a share (0 to 1) of the change."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, start in self.start.items():
                own[name].copy_(self.make(start, self.end[name].to(start.device), share))


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None
