"""Weighs tokens by their measured influence on the answers to later questions, without a weigher.

w_t = max(j_t, 0) / max over the row, j_t = <gradient of nll_t, gradient of the later loss after a step on the row>; the
mean over the questions about the row. What `foci meta` teaches a weigher to predict, for a corpus that comes with its
questions: the ceiling of a weigher. It knows what will be asked, so it is no method for text without questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foci import models
from foci.focus import Batch, Context, Prepares, Row, WeighsTokens
from foci.gradients.by_row import Later, alignments
from foci.gradients.influence import targets
from foci.gradients.inner_step import InnerStep
from foci.methods._prepared import Prepared, column_of, kept_column
from foci.methods.train_attention.pairs import Pair, read_pairs, tasks
from foci.models.forward import device_of, pad_id, padded
from foci.models.quantised import check_whole

COLUMN = "influence"
WHOLE = 2**31
"""No document of a pair is cut: the corpus' rows are parts of it."""


def about(rows: Sequence[Row], given: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Returns, by `row_id`, the pairs that ask about a row: their document, or a part of it with the answer's text."""
    by_text: dict[str, list[Pair]] = {}
    for pair in given:
        by_text.setdefault(pair.document.text, []).append(pair)
    own = {row.text for row in rows}
    cut = [(text, pair) for text, some in by_text.items() if text not in own for pair in some]
    found = {
        row.row_id: by_text.get(row.text)
        or [pair for text, pair in cut if row.text in text and pair.answer().casefold() in row.text.casefold()]
        for row in rows
        if row.text
    }
    return {name: some for name, some in found.items() if some}


@dataclass(frozen=True)
class Influence(Prepares):
    """Weighs each token by how much a training step on it would lower the loss on given questions.

    `pairs` is a .jsonl file of text, prompt and answer. `length` is the L2 length of the step. No weight is below
    `floor`; for each question the largest of a row is 1, and a row has the mean over its questions.
    """

    pairs: str
    floor: float = 0.0
    length: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise ValueError(f"influence's floor is a weight of at least 0 and below 1, got {self.floor!r}")
        if not 0 < self.length < float("inf"):
            raise ValueError(f"influence's length is a finite number above 0, got {self.length!r}")

    def prepare(self, context: Context) -> tuple["InfluenceWeights", Sequence[Row]]:
        """Adds the column `influence` to the rows that pairs ask about (`about`); on other rows it is 0.

        Raises ValueError where no row is asked about, the column was kept for other rows, pairs or another model, or
        weights are in few bits.
        """
        check_whole(context.model, "influence")
        given = read_pairs(self.pairs, context.tokenizer, max_length=WHOLE)
        asked = about(context.rows, given)
        found = [row for row in context.rows if row.row_id in asked]
        if not found:
            raise ValueError(
                f"none of the documents of the {len(given)} pairs in {self.pairs} is among the {len(context.rows)} "
                "rows of the corpus; pairs and corpus must hold the same texts"
            )
        names = " ".join(sorted(pair.id for row in found for pair in asked[row.row_id]))
        rows = kept_column(
            context,
            COLUMN,
            {"model": models.fingerprint(context.model), "pairs": names, "length": self.length},
            lambda rows: self._influence(rows, [asked[row.row_id] for row in rows], context),
            found,
        )
        return InfluenceWeights(self), rows

    def _influence(self, rows: Sequence[Row], asked: Sequence[Sequence[Pair]], context: Context) -> list[list[float]]:
        """Returns the mean of each row's targets over its questions, one number per token."""
        device, pad, step = device_of(context.model), pad_id(context.tokenizer), InnerStep(length=self.length)
        documents = padded(rows, pad, "right", device)
        of = torch.tensor([n for n, some in enumerate(asked) for _ in some])
        later = Later(tasks([pair for some in asked for pair in some], pad, device), torch.arange(len(of)), of)
        found = alignments(context.model, documents, later, documents.predicted().float(), step)
        return [targets(found[of == n]).mean(0)[: len(row)].tolist() for n, row in enumerate(rows)]


@dataclass(frozen=True, repr=False)
class InfluenceWeights(Prepared, WeighsTokens):
    """Weighs tokens by the influence that was computed before training."""

    settings: Influence

    def needs(self) -> frozenset[str]:
        """Names the column `influence`."""
        return frozenset({COLUMN})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns the column, `floor` at least. Raises ValueError where it is not there."""
        return column_of(batch, COLUMN, "influence").clamp(min=self.settings.floor)
