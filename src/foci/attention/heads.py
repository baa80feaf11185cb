"""Measures guided heads before, during and after training: their distances over steps, and a few maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.attention import attention_maps, head_distances
from foci.focus import DELIMITER, Batch, GuidesHeads, Pattern, Plan, Row
from foci.models import evaluating, layer_count
from foci.models.forward import device_of, pad_id, padded
from foci.models.sharding import without_gradients
from foci.system.files import append_step

ROWS, TOKENS, MAPS = 8, 32, 8
"""How many rows distances are measured on, and how many tokens and heads the shown maps have."""


@dataclass(frozen=True)
class GuidedHeads:
    """The guided heads of a plan, {layer: {head: pattern}}, and the rows on which they are measured."""

    heads: Mapping[int, Mapping[int, Pattern]]
    rows: Sequence[Row]
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(
        cls, plan: Plan, model: nn.Module, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase
    ) -> "GuidedHeads | None":
        """Collects the heads of a plan; None where it guides none. Of two patterns of a head the first counts."""
        heads: dict[int, dict[int, Pattern]] = {}
        for layer in range(layer_count(model)):
            for guide in reversed(plan.of(GuidesHeads)):
                heads.setdefault(layer, {}).update(guide.targets(layer))
        heads = {layer: named for layer, named in heads.items() if named}
        looks = any(pattern == "delimiter" for named in heads.values() for pattern in named.values())
        return cls(heads, _measured(rows, looks), tokenizer) if heads else None

    def distances(self, model: nn.Module) -> list[dict[str, Any]]:
        """Returns every head's `layer`, `head`, `pattern` and `distance`: the mean over queries of ||A_i - P_i||^2."""
        batch = self._batch(model, self.rows)
        column = batch.columns.get(DELIMITER)
        delimiters = None if column is None else column > 0
        with evaluating(model):
            found = head_distances(model, batch.input_ids, batch.attention_mask, self.heads, delimiters)
        return [
            {"layer": layer, "head": head, "pattern": self.heads[layer][head], "distance": distance}
            for (layer, head), distance in sorted(found.items())
        ]

    def note(self, model: nn.Module, file: Path, step: int, *, writes: bool = True) -> None:
        """Appends a line with the distances at this step to a file that has none.

        Of a sharded model every process must call it, and one of them `writes`.
        """
        with without_gradients(model):
            found = self.distances(model)
        if writes:
            append_step(file, {"step": step, "heads": found})

    def maps(self, model: nn.Module) -> dict[str, Any]:
        """Returns the first `tokens` of a row, and `maps` (query, key) of the first head of each layer and pattern."""
        row = self.rows[0].take(range(min(TOKENS, len(self.rows[0]))))
        batch = self._batch(model, [row])
        firsts: dict[tuple[int, Pattern], int] = {}
        for layer, named in sorted(self.heads.items()):
            for head, pattern in sorted(named.items()):
                firsts.setdefault((layer, pattern), head)
        chosen = [(layer, head) for (layer, _), head in firsts.items()][:MAPS]
        with evaluating(model):
            maps = attention_maps(model, batch.input_ids, batch.attention_mask, chosen)[0]
        return {
            "tokens": self.tokenizer.convert_ids_to_tokens(list(row.input_ids)),
            "maps": [
                {"layer": layer, "head": head, "pattern": self.heads[layer][head], "map": rounded(one)}
                for (layer, head), one in zip(chosen, maps, strict=True)
            ],
        }

    def _batch(self, model: nn.Module, rows: Sequence[Row]) -> Batch:
        return padded(rows, pad_id(self.tokenizer), "right", device_of(model))


def rounded(values: torch.Tensor) -> list[list[float]]:
    """Returns a matrix as lists, rounded to three decimals."""
    return [[round(value, 3) for value in row] for row in values.tolist()]


def _measured(rows: Sequence[Row], looks: bool) -> list[Row]:
    """Returns the first rows; where a pattern `looks` at delimiters, one of them has a delimiter if any row has."""
    found = list(rows[:ROWS])
    if looks and not any(map(_has_delimiter, found)):
        found[-1] = next(filter(_has_delimiter, rows), found[-1])
    return found


def _has_delimiter(row: Row) -> bool:
    return any(row.columns.get(DELIMITER, ()))
