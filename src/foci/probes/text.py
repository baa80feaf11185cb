"""Bits per byte: how well a model predicts running text, comparable between tokenizers."""

import math

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.corpus.tokens import tokens
from foci.focus import Batch, Row
from foci.models import max_length
from foci.models.forward import answering, check_ids, device_of
from foci.models.losses import token_nll


def bits_per_byte(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    window: int = 512,
    stride: int | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> float:
    """Returns the sum of NLL in nats / ln 2 / number of UTF-8 bytes predicted. Lower = better.

    The text is read in windows of `window` tokens (at most the model's longest input), each `stride` tokens
    (half a window) after the one before; every token but the first is predicted once, with at least
    `window - stride` tokens before it from the second window on. The tokens that the tokenizer puts before a text stand
    before every window and count in its length. The first token: with such a prefix it is predicted and its
    bytes count; without one it is not predicted and its bytes do not count. `dtype` as in `answer`.
    """
    prefix = _prefix(tokenizer)
    ids, offsets = tokens([text], tokenizer, special=False)[0]
    first = 0 if prefix else 1
    if len(ids) <= first:
        raise ValueError(f"text must hold at least {first + 1} tokens, got {len(ids)} in {text[:40]!r}; give a page")
    check_ids(model, [Row(text[:40], tuple(ids))], "the text")
    room = min(window, max_length(model)) - len(prefix)
    if room < 2:
        raise ValueError(f"window must hold at least {len(prefix) + 2} tokens, got {window}; enlarge it")
    stride = room // 2 if stride is None else stride
    nats, device = 0.0, device_of(model)
    with answering(model, dtype):
        for begin, end, predicted in windows(len(ids), room, stride, first):
            read = torch.tensor([[*prefix, *ids[begin:end]]], device=device)
            where = torch.zeros_like(read, dtype=torch.bool)
            where[:, len(prefix) + predicted - begin :] = True
            batch = Batch(input_ids=read, attention_mask=torch.ones_like(read), labels=read)
            nats += float(token_nll(model, batch, where).double().sum())
    skipped = offsets[first - 1][1] if first else 0
    return nats / math.log(2) / len(text[skipped:].encode())


def windows(length: int, window: int, stride: int, first: int = 1) -> list[tuple[int, int, int]]:
    """Returns (begin, end, predicted): tokens [begin, end) are read, those from `predicted` on are predicted.

    >>> windows(7, window=4, stride=2)
    [(0, 4, 1), (2, 6, 4), (4, 7, 6)]
    """
    if not 1 <= stride < window:
        raise ValueError(
            f"stride must be between 1 and {window - 1} (one less than the window, so that every token has a "
            f"token before it), got {stride}"
        )
    made, predicted = [], first
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        made.append((begin, end, predicted))
        predicted = end
        if end == length:
            break
    return made


def _prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Returns the tokens that the tokenizer puts before a text."""
    bare = tokens(["a"], tokenizer, special=False)[0][0]
    whole = tokens(["a"], tokenizer)[0][0]
    starts = [i for i in range(len(whole)) if whole[i : i + len(bare)] == bare]
    return whole[: starts[0]] if starts else ()
