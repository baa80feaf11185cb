"""Sentences are learned as if the text before them had been read: distillation via split contexts (arXiv 2602.16093).

The untouched model reads a document, the learner a sentence of it alone, and is held to what the model says there:

    loss = mean over the held tokens of T^2 KL(untouched model, after the text before || learner)        T = 2, nats

A sentence's tokens are held from its second on. Attention looks back alone, so one pass over a document says it for all
of its sentences. What a sentence says for the first time cannot be learned so: the teacher does not know it either. Two
variants: `labels` reads the documents with labels, too, and with `reads: document` the teacher has read the whole
document before it reads the sentence again.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from foci.corpus.split import sentence_ends
from foci.focus import Batch, Context, Imitates, LiveTeacher, MixesRows, Prepares, Row
from foci.methods._pieces import Piece, Told, joined, piece_of, tell
from foci.methods._prepared import Prepared
from foci.seeds import generator
from foci.system.words import counted, form


def sentences_of(row: Row) -> list[tuple[int, int]]:
    """Returns the tokens [first, last) of each sentence of a row's text; tokens that stand for no text are in none.

    A token belongs to the sentence in which its first character stands. Raises ValueError for a row without its text.
    """
    if not row.offsets:
        raise ValueError(f"disc needs the text and character offsets of every row, row {row.row_id} has none")
    ends = sentence_ends(row.text)
    real = [(bisect_right(ends, a), t) for t, (a, b) in enumerate(row.offsets) if b > a]
    parts = [[t for _, t in some] for _, some in groupby(real, lambda pair: pair[0])]
    return [(part[0], part[-1] + 1) for part in parts]


@dataclass(frozen=True)
class Disc(Prepares):
    """Trains on single sentences, held to what the untouched model says of them after the text before.

    Of each document `sentences` are drawn once: the last one, and others but the first. `reads` says what the teacher
    has read: the text "before" the sentence, or the whole "document" before it reads the sentence again. `labels` adds
    the documents themselves, with labels. `strength` is the factor of the divergence at temperature `temperature`; `k`
    of the teacher's likeliest tokens are kept.
    """

    sentences: int = 5
    reads: Literal["before", "document"] = "before"
    labels: bool = False
    strength: float = 1.0
    temperature: float = 2.0
    k: int = 20

    def __post_init__(self) -> None:
        if not all(0 < one < float("inf") for one in (self.strength, self.temperature)):
            raise ValueError(
                f"disc expected a finite strength and temperature above 0, got {self.strength!r} and "
                f"{self.temperature!r}; 1 and 2 are the paper's"
            )
        if min(self.sentences, self.k) < 1:
            raise ValueError(f"disc expected at least 1 sentence and k >= 1 tokens, got {self.sentences} and {self.k}")

    def replaces_rows(self) -> bool:
        """Says whether the sentences are read in place of the documents."""
        return not self.labels

    def prepare(self, context: Context) -> tuple["DiscHold | DiscRows", Sequence[Row]]:
        """Draws the sentences and asks the untouched model about their documents.

        The rows to train on are the sentences, or, with `labels`, the documents; the sentences are then mixed in.
        Raises ValueError where no document has two sentences.
        """
        drawn = [self._pieces(row, context) for row in context.rows]
        pieces = [piece for some in drawn for piece in some]
        if not pieces:
            raise ValueError(
                f"disc found no sentence to learn in {counted(len(context.rows), 'document')}: it needs documents "
                "of at least two sentences"
            )
        told = tell(context, pieces, LiveTeacher(self.k, self.temperature), "disc")
        rows, without = tuple(piece.row for piece in pieces), sum(not some for some in drawn)
        if self.labels:
            return DiscRows(self, told, without, rows), context.rows
        return DiscHold(self, told, without), rows

    def _pieces(self, row: Row, context: Context) -> list[Piece]:
        """Returns the drawn sentences of a document, in its order."""
        found = sentences_of(row)
        able = [span for n, span in enumerate(found) if n > 0 and span[1] - span[0] > 1]
        order = generator(context.seed, "disc", row.row_id).permutation(max(0, len(able) - 1))
        drawn = [*(able[n] for n in order[: self.sentences - 1]), *able[-1:]]
        return [self._piece(row, span, context) for span in sorted(drawn)]

    def _piece(self, row: Row, span: tuple[int, int], context: Context) -> Piece:
        if self.reads == "before":
            return piece_of(row, span, context, row, span[0])
        read, start = joined(row, row.input_ids[span[0] : span[1]], context)
        return piece_of(row, span, context, read, start)


@dataclass(frozen=True, repr=False)
class DiscHold(Prepared, Imitates):
    """Holds the sentences to what the teacher said."""

    settings: Disc
    told: Told = field(repr=False)
    without: int

    def teacher(self) -> Told:
        """Returns what the untouched model said of the sentences."""
        return self.told

    def hold(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns 1 on the sentences' tokens from the second on, else 0."""
        return self.told.held(batch, weights)

    def strength(self, step: int, steps: int) -> float:
        """Returns the same factor in every update."""
        return self.settings.strength

    def summary(self) -> str:
        """Says how many sentences were drawn, and what becomes of documents that have none to learn."""
        alone = form(self.without, "is", "are")
        left = f"{alone} read with labels alone" if self.settings.labels else f"{alone} not read"
        without = counted(self.without, "document")
        return f"disc: {counted(len(self.told.places), 'sentence')}; {without} of one sentence {left}"


@dataclass(frozen=True, repr=False)
class DiscRows(DiscHold, MixesRows):
    """Mixes the sentences in, beside the documents with their labels."""

    rows: tuple[Row, ...] = field(repr=False)

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns all drawn sentences."""
        return self.rows
