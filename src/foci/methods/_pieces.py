"""Rows whose teacher reads more than the learner: pieces of a text, held to what a model says of them inside of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foci.corpus import tokenizer_fingerprint
from foci.corpus.tokens import leading, tokens
from foci.focus import UNWEIGHTED, Batch, Context, LiveTeacher, Row, SoftTargets
from foci.methods._soft_targets import SoftTargetShards, Stored, ask_model
from foci.models import fingerprint, max_length
from foci.models.forward import pad_id

HELD = "piece"
"""Column that is 1 on the tokens of a piece that are held to the teacher."""


@dataclass(frozen=True)
class Piece:
    """A row for the learner, and the longer text in which the teacher reads the same tokens.

    Token t of `row`, from `lead` on, is token `start + t - lead` of `read`. The `lead` tokens before it, such as BOS,
    are the row's own.
    """

    row: Row
    read: Row
    start: int
    lead: int


@dataclass(frozen=True)
class Told:
    """A `StoredTeacher`: what a model said of the tokens of pieces, where they stand in the longer texts."""

    stored: Stored
    places: Mapping[str, tuple[str, int]] = field(repr=False)

    def targets(self, batch: Batch, where: Bool[Tensor, "batch seq"]) -> SoftTargets:
        """Returns the distributions at the positions in `where`, row by row. Raises ValueError for an unknown row."""
        known = self.stored.lines()
        found = [tuple(array[:0] for array in next(iter(known.values())))]
        for row_id, mask, asked in zip(batch.row_ids, batch.attention_mask.bool().cpu(), where.cpu(), strict=True):
            if not bool(asked.any()):
                continue
            if row_id not in self.places:
                raise ValueError(
                    f"{self.stored.name}: the teacher was not asked about row {row_id}; train on the rows that "
                    "prepare(context) returns"
                )
            read, shift = self.places[row_id]
            at = ((mask.cumsum(0) - 1)[asked] + shift - 1).numpy()  # token 1 of a text stands at 0
            found.append(tuple(array[at] for array in known[read]))
        ids, log_probs, rest = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*found, strict=True))
        return SoftTargets(ids.long(), log_probs, rest, self.stored.temperature).to(where.device)

    def held(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns 1 on the tokens of these pieces that are held, else 0."""
        if HELD not in batch.columns:
            return torch.zeros_like(weights)
        ours = weights.new_tensor([row in self.places for row in batch.row_ids])
        return batch.columns[HELD].to(weights) * ours[:, None]


def tell(context: Context, pieces: Sequence[Piece], teacher: LiveTeacher, name: str) -> Told:
    """Asks the untouched model about the longer texts of all pieces, each text once; kept in the context's folder.

    Raises ValueError where a text is longer than the model reads, and where what is kept was made for something else.
    """
    reads = list({piece.read.row_id: piece.read for piece in pieces}.values())
    longest, limit = max(reads, key=len), max_length(context.model)
    if len(longest) > limit:
        raise ValueError(
            f"{name}: the teacher would read {len(longest)} tokens of {longest.source or longest.row_id}, the model "
            f"reads at most {limit}; shorten the documents (corpus.max_length)"
        )
    shards = SoftTargetShards(
        context.folder / "teacher",
        {"model": fingerprint(context.model), "tokenizer": tokenizer_fingerprint(context.tokenizer)},
        reads,
        teacher,
        lambda rows: ask_model(context.model, pad_id(context.tokenizer), rows, teacher),
        name,
    )
    places = {piece.row.row_id: (piece.read.row_id, piece.start - piece.lead) for piece in pieces}
    return Told(shards.stored(), places)


def piece_of(row: Row, span: tuple[int, int], context: Context, read: Row, start: int) -> Piece:
    """Returns the tokens [first, last) of a row as a piece, behind what the tokenizer puts before a text.

    Its tokens are held from the second on; it has no labels. `start` is the place of its first token in `read`.
    """
    lead, (first, last) = leading(context.tokenizer), span
    body = row.take(range(first, last))
    count = len(lead) + last - first
    made = Row(
        f"{read.row_id}.{start}",
        (*lead, *body.input_ids),
        row.text,
        ((0, 0),) * len(lead) + body.offsets if body.offsets else (),
        {UNWEIGHTED: (1.0,) * count, HELD: (0.0,) * (len(lead) + 1) + (1.0,) * (last - first - 1)},
        row.source,
    )
    return Piece(made, read, start, len(lead))


def joined(document: Row, rest: Sequence[int], context: Context) -> tuple[Row, int]:
    """Returns a document and further tokens on a new line as one text, and where the further tokens begin.

    Special tokens at the document's end, such as an end of text, are left out.
    """
    special, length = set(context.tokenizer.all_special_ids), len(document)
    while length > 1 and document.input_ids[length - 1] in special:
        length -= 1
    ((line, _),) = tokens(["\n"], context.tokenizer, special=False)
    before = (*document.input_ids[:length], *line)
    ids = (*before, *rest)
    return Row(f"{document.row_id}+{'.'.join(map(str, rest))}", ids, source=document.source), len(before)
