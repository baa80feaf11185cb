"""Masked language modelling: some tokens are hidden, and predicted from all the others.

A share of the tokens is chosen anew in every epoch (dynamic masking, RoBERTa, arXiv 1907.11692); of these 80 % become
the mask, 10 % any token, 10 % stay as they are (BERT, arXiv 1810.04805, section 3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from numpy.random import Generator
from torch import Tensor, nn

from foci.focus import DELIMITER, IGNORED, Batch, EditsTokens, Row
from foci.models import head_of
from foci.models.losses import head_entropy, head_nll, hidden_states, placed
from foci.training.dataset import Collator

ORIGINAL, HIDDEN = "original", "hidden"
"""Columns of a masked row: the tokens as they were, and 1 on those that are predicted."""


@dataclass(frozen=True)
class Masking(EditsTokens):
    """Hides `rate` of a row's tokens, special ones apart. `known` is the size of the vocabulary."""

    mask_id: int
    special: frozenset[int]
    known: int
    rate: float = 0.15

    def edit(self, row: Row, rng: Generator) -> Row:
        """Returns the row with tokens hidden, and columns `ORIGINAL` and `HIDDEN`. Hidden delimiters do not count."""
        chosen, kind = rng.random(len(row)), rng.random(len(row))
        drawn = rng.integers(0, self.known, len(row))
        tokens, hidden = list(row.input_ids), [0.0] * len(row)
        for t, token in enumerate(row.input_ids):
            if token in self.special or chosen[t] >= self.rate:
                continue
            hidden[t] = 1.0
            if kind[t] < 0.8:
                tokens[t] = self.mask_id
            elif kind[t] < 0.9:
                tokens[t] = int(drawn[t])
        columns = {**row.columns, ORIGINAL: row.input_ids, HIDDEN: tuple(hidden)}
        if DELIMITER in columns:
            columns[DELIMITER] = tuple(d * (1 - h) for d, h in zip(columns[DELIMITER], hidden, strict=True))
        return replace(row, input_ids=tuple(tokens), columns=columns)


@dataclass(frozen=True)
class MaskedCollator:
    """Makes a model's inputs of masked rows. Labels: the original token where one is hidden, else `IGNORED`."""

    pad_id: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        made = Collator(self.pad_id)(rows)
        original, hidden = made["columns"].pop(ORIGINAL), made["columns"].pop(HIDDEN)
        return {**made, "labels": torch.where(hidden > 0, original.long(), IGNORED)}


def masked_nll(
    model: nn.Module, batch: Batch, where: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, "batch seq"]:
    """Computes the negative log-likelihood in nats of every labelled token at its own position; 0 elsewhere.

    Differentiable; only labelled positions reach the head. ValueError where a row's first token is labelled:
    `Batch.predicted` has none there, so rows begin with a special token.
    """
    wanted = batch.predicted() if where is None else batch.predicted() & where
    return placed(head_nll(head_of(model), *_hidden(model, batch, wanted)), wanted)


def masked_entropy(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, "batch seq"], Float[Tensor, "batch seq"]]:
    """Computes the NLL of every labelled token and the column `ENTROPY`, both in nats at its own position; 0 elsewhere.

    Without a gradient. ValueError as of `masked_nll`.
    """
    wanted = batch.predicted()
    nll, entropy = head_entropy(head_of(model), *_hidden(model, batch, wanted))
    return placed(nll, wanted), placed(entropy, wanted)


def _hidden(model: nn.Module, batch: Batch, wanted: Bool[Tensor, "batch seq"]) -> tuple[Tensor, Tensor]:
    """Returns the head's inputs at the labelled tokens in `wanted`, (token, hidden), and their labels, (token,)."""
    if bool((batch.labels[:, 0] != IGNORED).any()):
        raise ValueError(
            "a masked row begins with a special token that is never predicted, got the label "
            f"{int(batch.labels[:, 0].max())} there; put one before the text"
        )
    return hidden_states(model, batch)[wanted], batch.labels[wanted]
