"""The untouched model with the document in front of it teaches the learner without it: context distillation.

For a corpus that comes with questions: the teacher reads document, question and answer, the learner question and answer
alone, and is held to the teacher on the answer's tokens (arXiv 2306.09306, 2412.14964). It learns from questions, so it
is no method for text without them, and it never sees a question that the run asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from foci.corpus.tokens import leading
from foci.focus import UNWEIGHTED, Batch, Context, Imitates, LiveTeacher, MixesRows, Prepares, Row
from foci.methods._pieces import HELD, Piece, Told, joined, tell
from foci.methods._prepared import Prepared
from foci.methods._rehearsal import Pool
from foci.methods.train_attention.pairs import Pair, read_pairs
from foci.models import max_length
from foci.system.words import counted


@dataclass(frozen=True)
class ContextDistillation(Prepares):
    """Adds questions to every epoch, answered as the untouched model answers them with the document before its eyes.

    `pairs` is a .jsonl file of text, prompt and answer. An epoch has `ratio` of its questions per new row. They have no
    labels: their answers are held to the teacher at `strength` times the divergence, at `temperature`, over its `k`
    likeliest tokens.
    """

    pairs: str
    ratio: float = 1.0
    strength: float = 1.0
    temperature: float = 1.0
    k: int = 20

    def __post_init__(self) -> None:
        numbers = (self.ratio, self.strength, self.temperature)
        if not all(0 < one < float("inf") for one in numbers) or self.k < 1:
            raise ValueError(
                f"context_distillation expected a finite ratio, strength and temperature above 0 and k >= 1 tokens, "
                f"got {self.ratio!r}, {self.strength!r}, {self.temperature!r} and {self.k}"
            )

    def prepare(self, context: Context) -> tuple["ContextDistillationRows", Sequence[Row]]:
        """Asks the untouched model about all questions that the run does not ask; the new rows stay as they are.

        Raises ValueError where no question is left, and where a document with its question is too long for the model.
        """
        given = read_pairs(self.pairs, context.tokenizer, max_length=max_length(context.model))
        free = [pair for pair in given if pair.question() not in context.asked]
        if not free:
            raise ValueError(
                f"context_distillation: the run asks all {len(given)} questions of {self.pairs} itself, and no method "
                "may learn from what is asked; give other questions"
            )
        pieces = [self._piece(pair, context) for pair in free]
        told = tell(context, pieces, LiveTeacher(self.k, self.temperature), "context_distillation")
        pool = Pool(tuple(piece.row for piece in pieces), len(context.rows))
        return ContextDistillationRows(self, told, pool, len(given) - len(free)), context.rows

    def _piece(self, pair: Pair, context: Context) -> Piece:
        lead, answer = len(leading(context.tokenizer)), pair.task.columns["answer"]
        read, start = joined(pair.document, pair.task.input_ids[lead:], context)
        columns = {UNWEIGHTED: (1.0,) * len(answer), HELD: answer}
        return Piece(replace(pair.task, columns=columns, source=pair.document.source), read, start, lead)


@dataclass(frozen=True, repr=False)
class ContextDistillationRows(Prepared, MixesRows, Imitates):
    """Mixes in the questions, and holds their answers to what the teacher said."""

    settings: ContextDistillation
    told: Told = field(repr=False)
    pool: Pool = field(repr=False)
    left_out: int = 0

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns `ratio` questions per new row, another draw in each epoch."""
        return self.pool.drawn(self.settings.ratio, rng)

    def teacher(self) -> Told:
        """Returns what the untouched model said with the document before its eyes."""
        return self.told

    def hold(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns 1 on the answers of these questions, else 0."""
        return self.told.held(batch, weights)

    def strength(self, step: int, steps: int) -> float:
        """Returns the same factor in every update."""
        return self.settings.strength

    def summary(self) -> str:
        """Says how many questions there are, and how many were left out because the run asks them."""
        asked = counted(len(self.pool.rows), "question")
        return f"context_distillation: {asked}, {self.left_out} left out because the run asks them"
