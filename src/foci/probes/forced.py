"""Teacher forcing: the model's first choice at each token of the answer, given the true tokens before it."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foci.focus import Row
from foci.models import Head, head_of
from foci.models.forward import check_fits
from foci.models.losses import SLICE_ELEMENTS, vocabulary
from foci.models.prefixes import after


@dataclass(frozen=True)
class Forced:
    """The tokens of one answer: the true ones, the model's first choices, and the true tokens' NLL in nats."""

    truth: tuple[int, ...]
    chosen: tuple[int, ...]
    nll: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Share of the answer's tokens that are the model's first choice."""
        return sum(a == b for a, b in zip(self.truth, self.chosen, strict=True)) / len(self.truth)

    @property
    def mean_nll(self) -> float:
        """Nats per token of the answer."""
        return sum(self.nll) / len(self.nll)


def teacher_forced(model: nn.Module, rows: Sequence[Row], pad: int, batch_size: int = 32) -> list[Forced]:
    """Returns the model's first choices at the tokens with 1 in a row's column `answer`, for every row, in order.

    What rows begin with alike is read once (`foci.models.prefixes`), and what stands after the last choice is not read.
    Only the positions before the answer's tokens go through the LM head, in float32. `batch_size` does not change an
    answer. Run it under `answering`.
    """
    check_fits(model, rows)
    asked = [[at for at, mark in enumerate(row.columns["answer"]) if at and mark > 0] for row in rows]
    beginnings = list(
        dict.fromkeys(row.input_ids[:at] for row, places in zip(rows, asked, strict=True) for at in places)
    )
    number = {ids: n for n, ids in enumerate(beginnings)}
    wanted: dict[int, set[int]] = defaultdict(set)  # the true tokens after each beginning
    for row, places in zip(rows, asked, strict=True):
        for at in places:
            wanted[number[row.input_ids[:at]]].add(row.input_ids[at])
    said: dict[int, tuple[int, dict[int, float]]] = {}
    for indices, hidden in after(model, beginnings, pad, batch_size):
        said.update(zip(indices, choices(head_of(model), hidden, [sorted(wanted[n]) for n in indices]), strict=True))
    return [
        _forced(row, [said[number[row.input_ids[:at]]] for at in places], places)
        for row, places in zip(rows, asked, strict=True)
    ]


def _forced(row: Row, said: Sequence[tuple[int, dict[int, float]]], places: Sequence[int]) -> Forced:
    truth = tuple(row.input_ids[at] for at in places)
    nll = tuple(known[token] for token, (_, known) in zip(truth, said, strict=True))
    if any(map(math.isnan, nll)):
        raise ValueError(
            f"probe {row.row_id!r}: the model's logits are NaN, so it has no answer; "
            "its weights or inputs are broken (did training diverge?)"
        )
    return Forced(truth, tuple(chosen for chosen, _ in said), nll)


def choices(
    head: Head, hidden: Float[Tensor, "token hidden"], targets: Sequence[Sequence[int]]
) -> list[tuple[int, dict[int, float]]]:
    """Returns the first choice, and -log p of each of its targets in nats, at every position; one slice at a time."""
    size = max(1, SLICE_ELEMENTS // vocabulary(head))
    found: list[tuple[int, dict[int, float]]] = []
    for begin in range(0, len(targets), size):
        some = targets[begin : begin + size]
        logits = head.logits(hidden[begin : begin + size]).float()
        at = torch.tensor([n for n, tokens in enumerate(some) for _ in tokens], device=logits.device)
        tokens = torch.tensor([token for tokens in some for token in tokens], device=logits.device)
        nll = iter((logits.logsumexp(-1)[at] - logits[at, tokens]).tolist())
        for chosen, wanted in zip(logits.argmax(-1).tolist(), some, strict=True):
            found.append((chosen, {token: next(nll) for token in wanted}))
    return found
