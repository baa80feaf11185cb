"""Rehearses the untouched model's own continuations of the spans it attends to most: STOC (arXiv 2605.10640).

From each new row come the `spans` pieces of `length` tokens that receive the most attention. The untouched model
continues each of them `samples` times, and these texts are rehearsed: what it knows around what is to be learned.

    received_j = mean over layers, heads and the queries i >= j of A[i, j], without a row's first token
    score_j = received_j / (what token j would receive if attention were uniform)

A span's score is the mean of its tokens'. The best span is taken, then the best that shares no token with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.random import Generator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foci.attention import check_watched, received
from foci.corpus import read_rows, tokenizer_fingerprint, write_rows
from foci.corpus.store import rows_key
from foci.corpus.tokens import leading
from foci.focus import Context, MixesRows, Prepares, Row
from foci.methods._prepared import Prepared
from foci.methods._rehearsal import Pool, Prompts, continued
from foci.models import fingerprint, max_length
from foci.models.forward import answering, buckets, device_of, pad_id, padded
from foci.seeds import generator
from foci.system.cache import kept
from foci.system.words import counted

Choice = Literal["attended", "random", "first"]


def uniform_share(length: int) -> Float[np.ndarray, " length"]:
    """Returns the share that each token would receive if every query attended alike to all tokens but the row's first.

    Query i, from 0, gives 1 / i to each of the tokens 1 to i; token j receives the mean of that over i = j, ..., n - 1.
    The first token's is 1, so that a division by it is allowed.

    >>> uniform_share(4).round(4).tolist()  # (1 + 1/2 + 1/3) / 3, (1/2 + 1/3) / 2, 1/3
    [1.0, 0.6111, 0.4167, 0.3333]
    """
    given = 1 / np.arange(1, length)
    counts = np.arange(length - 1, 0, -1)
    return np.concatenate([[1.0], given[::-1].cumsum()[::-1] / counts])


def best_spans(scores: Sequence[int | float], length: int, count: int, allowed: Sequence[bool]) -> list[int]:
    """Returns where the `count` best spans of `length` tokens begin, in the text's order; no two share a token.

    Taken one after another, the best first, of equal ones the earlier. A span holds allowed tokens only. Fewer are
    returned where no more fit.

    >>> best_spans([0, 1, 9, 9, 1, 5, 5, 0], 2, 2, [False] + [True] * 7)
    [2, 5]
    """
    sums = np.convolve(scores, np.ones(length), "valid")
    free = np.convolve(allowed, np.ones(length), "valid") == length
    found: list[int] = []
    while len(found) < count and free.any():
        best = int(np.where(free, sums, -np.inf).argmax())
        found.append(best)
        free[max(0, best - length + 1) : best + length] = False
    return sorted(found)


@dataclass(frozen=True)
class Stoc(Prepares):
    """Adds the untouched model's own continuations of the spans of the new text that it attends to most.

    `spans` pieces of `length` tokens of each row are continued `samples` times, with the repetition penalty `penalty`;
    of more than `limit` continuations, `limit` are drawn. An epoch reads `ratio` of them per new row. `choose` is
    "attended", or a control: "random" spans, or the "first" ones of each row.
    """

    ratio: float = 1.0
    spans: int = 3
    length: int = 10
    samples: int = 3
    penalty: float = 1.05
    choose: Choice = "attended"
    limit: int = 1024

    def __post_init__(self) -> None:
        if not 0 < self.ratio < float("inf") or not 0 < self.penalty < float("inf"):
            raise ValueError(
                f"stoc expected a finite ratio and penalty above 0, got ratio {self.ratio!r} and penalty "
                f"{self.penalty!r}; 1.05 is the paper's penalty"
            )
        if min(self.spans, self.length, self.samples, self.limit) < 1:
            raise ValueError(
                f"stoc expected spans, length, samples and limit of at least 1, got {self.spans}, {self.length}, "
                f"{self.samples} and {self.limit}; 3, 10 and 3 are the paper's"
            )

    def check_model(self, model: PreTrainedModel) -> None:
        """Raises ValueError where the model's attention cannot be watched and has to be."""
        if self.choose == "attended":
            check_watched(model)

    def prepare(self, context: Context) -> tuple["StocRows", Sequence[Row]]:
        """Finds the spans and lets the untouched model continue them; the new rows stay as they are.

        Raises ValueError where `check_model` does, and where the continuations were kept for something else.
        """
        average = sum(len(row) for row in context.rows) / len(context.rows)
        longest = min(max(round(average), 2 * self.length), max_length(context.model))
        key: dict[str, str | int | float] = {
            "model": fingerprint(context.model),
            "tokenizer": tokenizer_fingerprint(context.tokenizer),
            "seed": context.seed,
            "rows": rows_key(context.rows),
            "longest": longest,
            **{name: getattr(self, name) for name in ("spans", "length", "samples", "penalty", "choose", "limit")},
        }
        rows = kept(
            context.folder / "continuations.parquet",
            key,
            lambda: continued(
                context.model,
                context.tokenizer,
                self._prompts(context),
                longest,
                seed=context.seed,
                penalty=self.penalty,
            ),
            write_rows,
            read_rows,
        )
        return StocRows(self, Pool(tuple(rows), len(context.rows))), context.rows

    def _prompts(self, context: Context) -> Prompts:
        """Returns the spans to continue, each behind what the tokenizer puts before a text, `samples` times."""
        lead, special, found = leading(context.tokenizer), set(context.tokenizer.all_special_ids), []
        for row, scores in zip(context.rows, self._scores(context), strict=True):
            allowed = [t > 0 and token not in special for t, token in enumerate(row.input_ids)]
            length = min(self.length, _longest_run(allowed))
            if not length:
                continue
            for start in best_spans(scores, length, self.spans, allowed):
                span = row.input_ids[start : start + length]
                found += [((*lead, *span), f"span {start}:{start + length} of row {row.row_id}")] * self.samples
        if not found:
            raise ValueError(
                f"stoc found no span to continue in {counted(len(context.rows), 'row')}; their text is too short"
            )
        if len(found) > self.limit:
            chosen = generator(context.seed, "stoc").permutation(len(found))[: self.limit]
            found = [found[n] for n in sorted(chosen.tolist())]
        ids, sources = zip(*found, strict=True)
        return Prompts(ids, sources)

    def _scores(self, context: Context) -> list[Sequence[int | float]]:
        """Returns a score for each token of each row; the spans with the largest are taken."""
        rows = context.rows
        if self.choose == "attended":
            return attended(context.model, context.tokenizer, rows)
        if self.choose == "first":
            return [[-float(t) for t in range(len(row))] for row in rows]
        return [generator(context.seed, "stoc", row.row_id).random(len(row)).tolist() for row in rows]


def attended(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]
) -> list[Sequence[int | float]]:
    """Returns the attention that each token receives over what uniform attention would give it; 1 = as much.

    A row's first token has 0. Raises ValueError for a model whose attention cannot be watched.
    """
    found: list[Sequence[int | float]] = [()] * len(rows)
    with answering(model, torch.float32):
        for bucket in buckets([len(row) for row in rows], 16):
            batch = padded([rows[n] for n in bucket], pad_id(tokenizer), "right", device_of(model))
            shares = received(model, batch.input_ids, batch.attention_mask, without_first=True)
            for n, line in zip(bucket, shares.double().cpu().numpy(), strict=True):
                length = len(rows[n])
                found[n] = (line[:length] / uniform_share(length)).tolist()
    return found


def _longest_run(allowed: Sequence[bool]) -> int:
    """Returns the length of the longest run of True."""
    longest = run = 0
    for one in allowed:
        run = run + 1 if one else 0
        longest = max(longest, run)
    return longest


@dataclass(frozen=True, repr=False)
class StocRows(Prepared, MixesRows):
    """Mixes in rows of `pool`, the continuations that were drawn before training."""

    settings: Stoc
    pool: Pool = field(repr=False)

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns `ratio` continuations per new row, another draw in each epoch."""
        return self.pool.drawn(self.settings.ratio, rng)
