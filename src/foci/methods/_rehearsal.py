"""Old text to rehearse: rows of files or the model's own samples, and how many of them an epoch reads.

The model's own samples need no old data: each begins with the token that begins a text and is drawn token by token
from the model's distribution (temperature 1, nothing cut off), so that the untouched model is, in expectation, already
at the optimum of their loss: they ask for nothing but staying.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.random import Generator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, RepetitionPenaltyLogitsProcessor

from foci.corpus import read_corpus, read_rows, row_id, tokenizer_fingerprint, write_rows
from foci.data import encyclopedia
from foci.focus import Context, Row
from foci.models import fingerprint
from foci.models.decoding import decodes_from_cache
from foci.models.forward import answering, device_of
from foci.models.padding import neighbour_limits
from foci.rows import Chosen, Rows, lengths_of
from foci.system.cache import kept
from foci.system.scratch import in_temporary_folder

ENCYCLOPEDIA = "encyclopedia"
"""The path that means texts about things that do not exist, which foci makes."""

BATCH = 64
"""Samples that are drawn side by side."""


@dataclass(frozen=True)
class Pool:
    """Old rows to draw from, and the number of new rows that ratios are counted by."""

    rows: Sequence[Row]
    new: int

    def drawn(self, ratio: int | float, rng: Generator) -> Rows:
        """Draws `ratio` old rows per new row, rounded half up. No row comes twice before every row came once."""
        return Chosen(self.rows, rehearsed_places(len(self.rows), rehearsed(self.new, ratio), rng))


def rehearsed_places(size: int, count: int, rng: Generator) -> Int[np.ndarray, " place"]:
    """Returns `count` places below `size` in random order; none comes twice before every place came once."""
    rounds = (rng.permutation(size)[: count - done] for done in range(0, count, max(1, size)))
    return np.concatenate([np.empty(0, np.int64), *rounds])


def rehearsed(new: int, ratio: int | float) -> int:
    """Returns the number of old rows that go with `new` new ones: ratio * new, rounded half up.

    >>> rehearsed(10, 0.25), rehearsed(10, 4.0)
    (3, 40)
    """
    return math.floor(ratio * new + 0.5)


def pool_of(context: Context, path: str | tuple[str, ...] | None, samples: int) -> Pool:
    """Reads old rows from text files (`path`), makes `samples` of `ENCYCLOPEDIA`, or draws (None) `samples` samples.

    Rows of files are at most as long as the longest new row, samples as the average one, so that a sample costs what a
    new row costs. They are kept in the context's folder, so that a resume reads the same; ValueError where what is kept
    there was made for another model, path, length, seed or number.
    """
    lengths = lengths_of(context.rows)
    longest, average = int(lengths.max()), max(2, math.ceil(int(lengths.sum()) / len(lengths)))
    tokens = tokenizer_fingerprint(context.tokenizer)
    if path is None:
        key: dict[str, str | int | float] = {
            "model": fingerprint(context.model),
            "tokenizer": tokens,
            "seed": context.seed,
        }
        rows = kept(
            context.folder / "own_samples.parquet",
            {**key, "samples": samples, "length": average},
            lambda: own_samples(context.model, context.tokenizer, samples, average, seed=context.seed),
            write_rows,
            read_rows,
        )
    elif path == ENCYCLOPEDIA:
        rows = kept(
            context.folder / "encyclopedia.parquet",
            {"tokenizer": tokens, "longest": longest, "texts": samples, "seed": context.seed},
            lambda: _made(context, samples, longest),
            write_rows,
            read_rows,
        )
    else:
        paths = (path,) if isinstance(path, str) else path
        rows = kept(
            context.folder / "old_rows.parquet",
            {"paths": " | ".join(paths), "tokenizer": tokens, "longest": longest},
            lambda: read_corpus(paths, context.tokenizer, max_length=longest).rows,
            write_rows,
            read_rows,
        )
    return Pool(rows, len(context.rows))


def _made(context: Context, count: int, longest: int) -> list[Row]:
    """Makes rows of `count` texts, each cut to `longest` tokens."""
    with tempfile.TemporaryDirectory() as folder:
        with in_temporary_folder():
            path = encyclopedia.write(count, context.seed, Path(folder) / "encyclopedia.jsonl")
        rows = read_corpus(str(path), context.tokenizer, max_length=longest).rows
    return [replace(row, columns={}, source=f"encyclopedia:{n}") for n, row in enumerate(rows, start=1)]


def own_samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, longest: int, *, seed: int = 0
) -> list[Row]:
    """Draws `count` texts that the model writes by itself, of at most `longest` tokens, the same for the same seed.

    Each begins with the tokenizer's BOS token (EOS where it has none) and ends with EOS or at `longest`. The first
    token is part of the row, so that all others are predicted from what they were drawn from.
    """
    if count < 1 or longest < 2:
        raise ValueError(f"own samples: expected at least 1 sample of at least 2 tokens, got {count} of {longest}")
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise ValueError("the tokenizer has no BOS or EOS token to begin a sample with; name a path to old text")
    sources = [f"own sample:{number}" for number in range(count)]
    return continued(model, tokenizer, Prompts([(int(start),)] * count, sources), longest, seed=seed)


@dataclass(frozen=True)
class Prompts:
    """Token ids that samples begin with, and where each comes from; the same prompt may come several times."""

    ids: Sequence[tuple[int, ...]]
    sources: Sequence[str]


def continued(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, longest: int, *, seed: int = 0,
    penalty: float = 1.0,
) -> list[Row]:  # fmt: skip
    """Lets the model continue each prompt (temperature 1, nothing cut off), the same for the same seed.

    The rows hold prompt and continuation, in the prompts' order; they end with EOS or at `longest` tokens. `penalty`
    divides the logits above 0 of tokens that stand in the row already, and multiplies those below 0 (arXiv 1909.05858,
    section 4.1); 1 leaves them as they are.
    """
    rng = torch.Generator().manual_seed(seed)
    lines: list[Sequence[int]] = [()] * len(prompts.ids)
    with answering(model, torch.float32):
        for bucket in _alike(prompts.ids):
            begun = torch.tensor([prompts.ids[n] for n in bucket])
            drawn = _drawn(model, begun, tokenizer.eos_token_id, longest, _Draw(rng, penalty))
            for n, line in zip(bucket, drawn.tolist(), strict=True):
                lines[n] = line
    return list(_rows(lines, tokenizer, prompts.sources))


def _alike(prompts: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Yields the places of prompts of one length, at most `BATCH` at a time."""
    for length in sorted({len(ids) for ids in prompts}):
        places = [n for n, ids in enumerate(prompts) if len(ids) == length]
        yield from (places[at : at + BATCH] for at in range(0, len(places), BATCH))


@dataclass(frozen=True)
class _Draw:
    """How a token is drawn from logits."""

    rng: torch.Generator
    penalty: float

    def token(self, logits: Float[Tensor, "batch vocab"], before: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch 1"]:
        """Draws one token for each row that has read `before`."""
        if self.penalty != 1:
            logits = RepetitionPenaltyLogitsProcessor(self.penalty)(before, logits)
        return torch.multinomial(logits.softmax(-1), 1, generator=self.rng)


def _drawn(
    model: PreTrainedModel, drawn: Int[Tensor, "batch start"], end: int | None, longest: int, draw: _Draw
) -> Int[Tensor, "batch seq"]:
    """Draws samples side by side, token by token; -1 after a sample's end.

    A model whose cache is not proved right reads whole samples again after each token.
    """
    cached = decodes_from_cache(model, uneven=False) and all(longest <= limit for limit, *_ in neighbour_limits(model))
    cache, live = None, torch.ones(len(drawn), dtype=torch.bool)
    while drawn.shape[1] < longest and bool(live.any()):
        read = (drawn if cache is None else drawn[:, -1:]).clamp(min=0).to(device_of(model))
        if cached:
            where = torch.arange(drawn.shape[1] - read.shape[1], drawn.shape[1], device=read.device).expand_as(read)
            output = model(input_ids=read, position_ids=where, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
        else:
            output = model(input_ids=read, use_cache=False)
        token = draw.token(output.logits[:, -1].float().cpu(), drawn.clamp(min=0))
        drawn = torch.cat([drawn, torch.where(live[:, None], token, -1)], 1)
        if end is not None:
            live &= token[:, 0] != end
    return drawn


def _rows(drawn: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, sources: Sequence[str]) -> Iterator[Row]:
    """Makes rows of drawn ids; the text is only for people, the ids are never made again from it."""
    prints = tokenizer_fingerprint(tokenizer)
    for line, source in zip(drawn, sources, strict=True):
        ids = tuple(token for token in line if token >= 0)
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
        yield Row(row_id(" ".join(map(str, ids)), prints), ids, text, source=source)
