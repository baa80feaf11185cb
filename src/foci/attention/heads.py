"""What guided heads look at before, during and after training: their distances over steps, and a few maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.attention import attention_maps, head_distances
from foci.focus import DELIMITER, Batch, Pattern, Plan, Row
from foci.models import evaluating, layer_count
from foci.models.forward import device_of, pad_id, padded
from foci.system.files import append_line

ROWS, TOKENS, MAPS = 8, 32, 8
"""Rows on which distances are measured; tokens of the first one, and heads, of which maps are shown."""


@dataclass(frozen=True)
class GuidedHeads:
    """The guided heads of a plan, {layer: {head: pattern}}, and the rows on which they are looked at."""

    heads: Mapping[int, Mapping[int, Pattern]]
    rows: Sequence[Row]
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(
        cls, plan: Plan, model: nn.Module, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase
    ) -> "GuidedHeads | None":
        """None where the plan guides no head. A head that two methods guide has the first one's pattern."""
        heads: dict[int, dict[int, Pattern]] = {}
        for layer in range(layer_count(model)):
            for guide in reversed(plan.guides):
                heads.setdefault(layer, {}).update(guide.targets(layer))
        heads = {layer: named for layer, named in heads.items() if named}
        return cls(heads, list(rows[:ROWS]), tokenizer) if heads else None

    def distances(self, model: nn.Module) -> list[dict[str, Any]]:
        """Of every head `layer`, `head`, `pattern` and `distance`: the mean over queries of ||A_i - P_i||^2."""
        batch = self._batch(model, self.rows)
        column = batch.columns.get(DELIMITER)
        delimiters = None if column is None else column > 0
        with evaluating(model):
            found = head_distances(model, batch.input_ids, batch.attention_mask, self.heads, delimiters)
        return [
            {"layer": layer, "head": head, "pattern": self.heads[layer][head], "distance": distance}
            for (layer, head), distance in sorted(found.items())
        ]

    def note(self, model: nn.Module, file: Path, step: int) -> None:
        """Adds a line with the distances at this step."""
        append_line(file, {"step": step, "heads": self.distances(model)})

    def maps(self, model: nn.Module) -> dict[str, Any]:
        """`tokens` of a row's beginning, and `maps` (query, key) of the first head of each layer and pattern."""
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
    """A matrix as lists, to three decimals."""
    return [[round(value, 3) for value in row] for row in values.tolist()]
