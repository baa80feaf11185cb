"""Teacher forcing: the model's first choice at each token of the answer, given the true tokens before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from foci.focus import Row
from foci.models import Head, head_of
from foci.models.forward import buckets, check_fits, device_of, padded
from foci.models.losses import SLICE_ELEMENTS, hidden_states, vocabulary


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


def teacher_forced(
    model: nn.Module,
    rows: Sequence[Row],
    pad: int,
    batch_size: int = 32,
    side: Literal["right", "left"] = "right",
) -> list[Forced]:
    """Returns the model's first choices at the tokens with 1 in a row's column `answer`, for every row, in order.

    Batches hold rows of like length; only the answer's positions go through the LM head, in float32. Neither
    `batch_size` nor `side` (where padding stands) changes an answer. Run it under `answering`.
    """
    check_fits(model, rows)
    head = head_of(model)
    made: dict[int, Forced] = {}
    for indices in buckets([len(row) for row in rows], batch_size):
        batch = padded([rows[i] for i in indices], pad, side, device_of(model))
        wanted = batch.predicted() & (batch.columns["answer"] > 0)
        picked = hidden_states(model, batch)[:, :-1][wanted[:, 1:]]
        truth = batch.input_ids[wanted]
        chosen, nll = choices(head, picked, truth)
        counts = wanted.sum(1).tolist()
        parts = (part.split(counts) for part in (truth.cpu(), chosen.cpu(), nll.cpu()))
        for index, t, c, n in zip(indices, *parts, strict=True):
            if bool(torch.isnan(n).any()):
                raise ValueError(
                    f"probe {rows[index].row_id!r}: the model's logits are NaN, so it has no answer; "
                    "its weights or inputs are broken (did training diverge?)"
                )
            made[index] = Forced(tuple(t.tolist()), tuple(c.tolist()), tuple(n.tolist()))
    return [made[index] for index in range(len(rows))]


def choices(
    head: Head, hidden: Float[Tensor, "token hidden"], truth: Int[Tensor, " token"]
) -> tuple[Int[Tensor, " token"], Float[Tensor, " token"]]:
    """Returns the first choice and -log p(truth) in nats at every position, computed for one slice at a time."""
    size = max(1, SLICE_ELEMENTS // vocabulary(head))
    chosen, nll = [], []
    for part, target in zip(hidden.split(size), truth.split(size), strict=True):
        logits = head.logits(part).float()
        chosen.append(logits.argmax(-1))
        nll.append(cross_entropy(logits, target, reduction="none"))
    return torch.cat(chosen), torch.cat(nll)
