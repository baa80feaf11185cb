"""Everything a run asks its model: probes, bits per byte of a page, bits per byte of the corpus, sample rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.combine import update_weights, with_columns
from foci.dataset import generator
from foci.focus import Batch, Plan, Row
from foci.losses import token_nll
from foci.probes import Answer, Probe, answer, binding, bits_per_byte
from foci.probes.forward import answering, buckets, device_of, pad_id, padded

CORPUS_TOKENS = 2048
"""Tokens of the corpus, at most, on which bits per byte are measured."""
HELD_OUT = "held_out/"
"""How the id of a held-out probe begins. It is asked with the others, but has no part in learned and retained."""
SAMPLES = 12
"""Rows whose tokens the report shows."""


@dataclass(frozen=True)
class Questions:
    """What is asked, the same before, during and after training."""

    probes: tuple[Probe, ...]
    text: str | None
    rows: tuple[Row, ...]
    batch_size: int = 32

    def prompts(self) -> frozenset[str]:
        """What is asked; offline halves of methods may not learn from it."""
        return frozenset(prompt for probe in self.probes if (prompt := probe.prompt.strip()))

    def ask(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Answer], dict[str, float | None]]:
        """Answers to all probes, and what else is measured, None where not asked: bits per byte of the page and of the
        corpus, `binding` of the probes to learn.
        """
        answers = answer(model, tokenizer, self.probes, batch_size=self.batch_size) if self.probes else []
        return answers, {
            "bits_per_byte": bits_per_byte(model, tokenizer, self.text) if self.text else None,
            "corpus_bits_per_byte": rows_bits_per_byte(model, tokenizer, self.rows) if self.rows else None,
            "binding": binding(model, tokenizer, [probe for probe in self.probes if _learned(probe)]),
        }


def _learned(probe: Probe) -> bool:
    return probe.role == "learn" and not probe.id.startswith(HELD_OUT)


def scored(answers: Sequence[Answer]) -> list[Answer]:
    """The answers that make up learned and retained: all but the held-out ones."""
    return [answer for answer in answers if not answer.probe_id.startswith(HELD_OUT)]


def chosen(rows: Sequence[Row], seed: int, tokens: int = CORPUS_TOKENS) -> tuple[Row, ...]:
    """Random rows with at most `tokens` tokens together (at least one row)."""
    kept: list[Row] = []
    for index in generator(seed, "corpus text").permutation(len(rows)):
        row = rows[index]
        if kept and len(row) > tokens:
            break
        kept.append(row)
        tokens -= len(row)
    return tuple(kept)


def rows_bits_per_byte(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> float:
    """Bits per UTF-8 byte of the rows' text that is predicted (all but each row's first token). Lower = better."""
    nats, size = 0.0, 0
    with answering(model, torch.float32):
        for bucket in buckets([len(row) for row in rows], 32):
            some = [rows[i] for i in bucket]
            batch = padded(some, pad_id(tokenizer), "right", device_of(model))
            text = torch.zeros_like(batch.input_ids, dtype=torch.bool)
            for n, row in enumerate(some):
                spans = torch.tensor(row.offsets)
                text[n, : len(row)] = (spans[:, 1] > spans[:, 0]).to(text.device)
                size += len(row.text.encode()) - len(row.text[: row.offsets[0][1]].encode())
            nats += float(token_nll(model, batch, text).double().sum())
    return nats / math.log(2) / max(size, 1)


def samples(rows: Sequence[Row], seed: int) -> list[Row]:
    """A few rows for the report, the same in every arm."""
    order = generator(seed, "samples").permutation(len(rows))[:SAMPLES]
    return [rows[i] for i in sorted(order)]


def row_nll(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[list[float | None]]:
    """NLL of every token of every row in nats; None at each row's first."""
    with answering(model, torch.float32):
        batch = padded(rows, pad_id(tokenizer), "right", device_of(model))
        nll = token_nll(model, batch).tolist()
    return [[None, *line[1 : len(row)]] for line, row in zip(nll, rows, strict=True)]


def words_of(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of every token; a special token's name where it stands for none."""
    pairs = zip(row.input_ids, row.offsets, strict=True)
    return [row.text[a:b] if b > a else str(tokenizer.convert_ids_to_tokens(i)) for i, (a, b) in pairs]


def described(
    rows: Sequence[Row], plan: Plan, tokenizer: PreTrainedTokenizerBase,
    before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]],
) -> list[dict[str, Any]]:  # fmt: skip
    """samples.json: tokens, weights (largest = 1), NLL before and after, marks of answers, of each sample row."""
    batch = padded(with_columns(plan, rows), pad_id(tokenizer), "right", torch.device("cpu"))
    nll = torch.zeros(batch.input_ids.shape)
    for n, line in enumerate(before):
        nll[n, : len(line)] = torch.tensor([value or 0.0 for value in line])
    columns = {**batch.columns, "nll": nll}
    weights = update_weights(plan, Batch(batch.input_ids, batch.attention_mask, batch.labels, columns, batch.row_ids))
    weights = weights / weights.max().clamp(min=1e-12)
    return [
        {
            "row_id": row.row_id,
            "source": row.source,
            "tokens": words_of(row, tokenizer),
            "weights": [round(value, 6) for value in weights[n, : len(row)].tolist()],
            "nll_before": list(before[n]),
            "nll_after": list(after[n]),
            **({"answer": list(row.columns["answer"])} if "answer" in row.columns else {}),
        }
        for n, row in enumerate(rows)
    ]  # fmt: skip
