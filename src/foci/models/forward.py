"""Runs a model on rows without training it: evaluation mode, batches of rows of similar length, the model's limits."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.focus import Batch, Row
from foci.models.architecture import base_of, evaluating, max_length
from foci.models.losses import token_entropy, token_nll
from foci.rows import largest_of

TOKEN_BUDGET = 16384
"""Most tokens in one batch, padding included. A batch of long rows has fewer rows than `batch_size`."""


@contextmanager
def as_loaded(model: nn.Module) -> Iterator[None]:
    """Restores the model's own `forward` while open.

    When accelerate trains a model in half precision, it wraps `forward` in an autocast, which stays after training and
    which an autocast around the call cannot switch off.
    """
    wrapped: Any = model.forward
    own = model.__dict__.get("_original_forward")
    if own is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped


@contextmanager
def answering(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Puts the model into evaluation mode without gradients while open; afterwards all is as before.

    `dtype` float32: no autocast, even inside a caller's (weights stay in their own dtype). Another dtype: autocast to
    it. None: the caller's autocast, if any.
    """
    kind = device_of(model).type
    if dtype is None and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    if dtype is None or dtype is torch.float32:
        precision = torch.autocast(kind, enabled=False)
    else:
        precision = torch.autocast(kind, dtype=dtype)
    with evaluating(model), as_loaded(model), torch.no_grad(), precision:  # inference mode keeps no cast weights
        yield


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of the model's first parameter, where its input must be."""
    return next(model.parameters()).device


def padded(rows: Sequence[Row], pad_id: int, side: str, device: torch.device) -> Batch:
    """Returns the rows as one batch on `device`, padded on `side` ("left" or "right")."""
    batch = Batch.of(rows, pad_id=pad_id, side=side)  # type: ignore[arg-type]
    return batch.to(device)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns a token to pad with. Which one does not matter: no real token sees it."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(token for token in known if token is not None))


def buckets(lengths: Sequence[int], batch_size: int, budget: int | None = TOKEN_BUDGET) -> list[list[int]]:
    """Returns batches of indices of similar lengths, longest first, each of at most `budget` tokens (or one row).

    None: of any number of tokens.

    >>> buckets([3, 9, 4, 8], batch_size=2)
    [[1, 3], [2, 0]]
    >>> buckets([3, 9, 4, 8], batch_size=4, budget=12)
    [[1], [3], [2, 0]]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    made: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        wide = bool(made) and budget is not None and (len(made[-1]) + 1) * lengths[made[-1][0]] > budget
        if not made or len(made[-1]) == batch_size or wide:
            made.append([])
        made[-1].append(index)
    return made


def check_fits(model: nn.Module, rows: Sequence[Row], extra: Sequence[int] | None = None) -> None:
    """Raises ValueError for a row that the model cannot read.

    It is longer than the model's input (with `extra` tokens to generate), or has a token that the model does not know.
    """
    limit = max_length(model)
    check_ids(model, rows, "probe")
    for row, more in zip(rows, extra or [0] * len(rows), strict=True):
        if len(row) + more > limit:
            raise ValueError(
                f"probe {row.row_id!r} needs {len(row) + more} tokens, the model reads at most {limit}; "
                "shorten the probe or max_new_tokens"
            )


def check_ids(model: nn.Module, rows: Sequence[Row], noun: str = "row") -> None:
    """Raises ValueError for a row, called `noun`, that has a token without a row in the model's embedding."""
    known = int(base_of(model).get_input_embeddings().weight.shape[0])
    if largest_of(rows) < known:
        return
    for row in rows:
        if max(row.input_ids, default=0) >= known:
            place = next(place for place, token in enumerate(row.input_ids) if token >= known)
            raise ValueError(
                f"{noun} {row.row_id!r} has token {row.input_ids[place]} at position {place} (from 0), the model knows "
                f"0 to {known - 1}; take that text out, or use the model's own tokenizer"
            )


def row_nll(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[tuple[float, ...]]:
    """Returns the NLL of every token of every row in nats, computed without autocast; 0 at each row's first token."""
    return _row_by_row(model, tokenizer, rows, lambda batch: token_nll(model, batch))


def row_entropy(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[tuple[float, ...]]:
    """Returns the column `ENTROPY` of every row in nats, computed without autocast; 0 at each row's first token."""
    return _row_by_row(model, tokenizer, rows, lambda batch: token_entropy(model, batch)[1])


def _row_by_row(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], compute: Callable[[Batch], torch.Tensor]
) -> list[tuple[float, ...]]:
    found: list[tuple[float, ...]] = [()] * len(rows)
    with answering(model, torch.float32):
        for bucket in buckets([len(row) for row in rows], 32):
            some = [rows[i] for i in bucket]
            batch = padded(some, pad_id(tokenizer), "right", device_of(model))
            for i, line in zip(bucket, compute(batch).tolist(), strict=True):
                found[i] = tuple(line[: len(rows[i])])
    return found
