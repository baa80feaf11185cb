"""The sample rows of a report: NLL and weight of every token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.corpus.samples import words_of
from foci.focus import Batch, Plan, Row
from foci.models.forward import pad_id, padded, row_nll
from foci.training.plan import update_weights, with_columns


def sample_nll(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[list[float | None]]:
    """Returns the NLL of every token of every row in nats; None at each row's first token, which has none."""
    return [[None, *line[1:]] for line in row_nll(model, tokenizer, rows)]


def described(
    rows: Sequence[Row], plan: Plan, tokenizer: PreTrainedTokenizerBase,
    before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns samples.json: of each row its tokens, weights (largest = 1), NLL before and after, marks of answers."""
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
