"""The bytes that a run's folder will take, from what is known before it: weights, rows, questions."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.config.run import Run
from foci.config.train import TrainConfig
from foci.corpus import write_rows
from foci.corpus.samples import samples
from foci.focus import Row
from foci.learn.callbacks import probings_before_the_last
from foci.rows import chosen, lengths_of

SAMPLE = 2000
"""Rows, at most, that are written to a temporary file to know the bytes of a token."""
BESIDE, CARD = 32_000, 6_000
"""Bytes of a checkpoint beside weights, moments and tokenizer (state, arguments, random numbers), and of a card."""
NAME, MOMENTS = 124, 820
"""Bytes of a tensor's name and place in a file of weights, and of those of its moments in optimizer.pt."""
TABLE, ANSWER = 4_500, 100
"""Bytes of a table of answers, and of an answer in it."""
UPDATE, SEEN = 430, 20
"""Bytes of a line of metrics.jsonl, and of a row that it names as read for the first time."""
REPORT, PER_ARM, SHOWN = 175_000, 5_000, 110
"""Bytes of report.html with other small files, of an arm's result, and of a token in samples.json."""


@dataclass(frozen=True)
class Disk:
    """Bytes of one arm: `model` (model/), `adapter` (adapter/), `checkpoint` (one) and how many are kept, `rest`.

    `scores`: what offline stages keep.
    """

    model: int
    adapter: int
    checkpoint: int
    checkpoints: int
    rest: int
    scores: int = 0

    @property
    def total(self) -> int:
        """Returns the bytes of the arm when it is finished."""
        return self.model + self.adapter + self.checkpoint * self.checkpoints + self.rest + self.scores


def disk_of(run: Run, model: nn.Module, tokenizer: int, updates: int, answers: int, rows: Sequence[Row]) -> Disk:
    """Returns what an arm will take; `model` is the one that trains, `tokenizer` the bytes of its tokenizer's files.

    `answers` are the probes of a probing, and `rows` those of the corpus.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    tensors = sum(p.requires_grad for p in model.parameters())
    shown = sum(map(len, samples(rows, run.seed)))
    own = {id(p) for name, p in model.named_parameters() if isinstance(model, PeftModel) and p.requires_grad}
    base = sum(p.numel() * p.element_size() for p in model.parameters() if id(p) not in own)
    adapted = isinstance(model, PeftModel)
    weights = trained if adapted else base
    written = updates // _every(run.train, updates)
    probings = 2 + probings_before_the_last(run, updates)
    return Disk(
        model=base + tokenizer + CARD if run.model.bits is None else 0,
        adapter=trained + NAME * tensors + CARD if adapted else 0,
        checkpoint=weights + 2 * trained + tokenizer + (NAME + MOMENTS) * tensors + BESIDE,
        checkpoints=min(run.train.keep_checkpoints, written),
        rest=PER_ARM + SHOWN * shown + probings * (TABLE + ANSWER * answers) + UPDATE * updates + SEEN * len(rows),
    )


def _every(train: TrainConfig, updates: int) -> int:
    return train.checkpoint_every or max(1, ceil(updates / 10))


def rows_bytes(rows: Sequence[Row]) -> int:
    """Returns the bytes of rows.parquet: written, or of many rows by a sample of them."""
    step = max(1, len(rows) // SAMPLE)
    some = chosen(rows, np.arange(0, len(rows), step)) if step > 1 else rows
    with tempfile.TemporaryDirectory() as folder:
        write_rows(some, Path(folder) / "rows.parquet")
        written = (Path(folder) / "rows.parquet").stat().st_size
    return round(written * int(lengths_of(rows).sum()) / max(1, int(lengths_of(some).sum())))


def tokenizer_bytes(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the bytes of a tokenizer's files."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
