"""The sample rows of a report: NLL and weight of every token."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from foci.corpus.samples import words_of
from foci.focus import ENTROPY, Batch, Plan, Row
from foci.models.forward import pad_id, padded, row_entropy, row_nll
from foci.training.plan import live_columns, update_weights, with_columns


def sample_nll(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[list[float | None]]:
    """Returns the NLL of every token of every row in nats; None at each row's first token, which has none."""
    return [[None, *line[1:]] for line in row_nll(model, tokenizer, rows)]


def sample_entropy(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], plan: Plan
) -> list[tuple[float, ...]]:
    """Returns the column `ENTROPY` of every row in nats, or no lines where no method of the plan reads it."""
    return row_entropy(model, tokenizer, rows) if ENTROPY in live_columns(plan) else []


def described(
    rows: Sequence[Row], plan: Plan, tokenizer: PreTrainedTokenizerBase,
    before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]],
    entropy: Sequence[Sequence[float]] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns samples.json: of each row its tokens, weights (largest = 1), NLL before and after, marks of answers.

    The weights are those before the first update; `entropy` is the untouched model's, where the plan reads it.
    """
    batch = padded(with_columns(plan, rows), pad_id(tokenizer), "right", torch.device("cpu"))
    columns = {**batch.columns, "nll": _filled(before, batch), ENTROPY: _filled(entropy, batch)}
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


def _filled(lines: Sequence[Sequence[float | None]], batch: Batch) -> Float[Tensor, "batch seq"]:
    """Returns the numbers of each row, 0 for None and for padding."""
    column = torch.zeros(batch.input_ids.shape)
    for n, line in enumerate(lines):
        column[n, : len(line)] = torch.tensor([value or 0.0 for value in line])
    return column
