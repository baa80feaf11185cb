"""Turns documents into rows: tokenises them in batches, cuts the long ones, and carries their marks along."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from foci.corpus.documents import BadLine, Document, excerpt
from foci.corpus.split import Room, Span, cuts, tighten
from foci.corpus.tokens import overlap, row_id, tokenizer_fingerprint
from foci.focus import Row

_BATCH = 1024
ANSWER = "answer"
"""The spans that a cut does not tear where they fit into one row."""


@dataclass(frozen=True)
class Made:
    """The rows of `make_rows` (unique ids), the pieces that gave no row, and counts.

    `documents` counts those that gave a row, `split` those that were cut, `repeated` the rows that were
    left out because another one has the same text.
    """

    rows: tuple[Row, ...]
    bad: tuple[BadLine, ...]
    documents: int
    split: int
    repeated: int


@dataclass(frozen=True)
class _Piece:
    """The characters [start, end) of a document, which begin on line `line`; `last` at the document's end."""

    document: Document
    start: int
    end: int
    line: int
    last: bool = True

    @property
    def text(self) -> str:
        return self.document.text[self.start : self.end]

    @property
    def spans(self) -> dict[str, tuple[Span, ...]]:
        """The parts of the document's spans that lie in this piece, in characters of its text."""
        return {name: self._inside(spans) for name, spans in self.document.spans.items()}

    def _inside(self, spans: Sequence[Span]) -> tuple[Span, ...]:
        inside = ((max(s, self.start), min(e, self.end)) for s, e in spans)
        tight = (tighten(self.document.text, span) for span in inside if span[0] < span[1])
        return tuple((span[0] - self.start, span[1] - self.start) for span in tight if span)

    def bad(self, reason: str) -> BadLine:
        return BadLine(self.document.file, self.line, reason, excerpt(self.text))


@dataclass(frozen=True)
class _Encoded:
    """The token ids of a piece, and the characters of its text that each token stands for."""

    piece: _Piece
    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True)
class _Encoder:
    """Cuts documents into pieces of at most `max_length` tokens, special tokens at both ends included.

    `eos` is the id that is put after the last token of a document (unless it is there already); None for none.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    eos: int | None

    def encode(self, pieces: Sequence[_Piece]) -> Iterator[_Encoded | BadLine]:
        """Yields the encoded pieces in order, each cut as often as needed."""
        batch: Any = self.tokenizer(
            [piece.text for piece in pieces],
            add_special_tokens=True,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for piece, encoding in zip(pieces, batch.encodings, strict=True):
            encoded = _Encoded(piece, encoding.ids, encoding.offsets)
            if len(encoded.ids) + self.owed(encoded) <= self.max_length:
                yield self.finished(encoded)
            elif parts := self.cut(encoded, encoding.special_tokens_mask):
                yield from self.encode(parts)
            else:
                yield piece.bad(f"one character of {len(encoded.ids)} tokens: more than max_length = {self.max_length}")

    def owed(self, encoded: _Encoded) -> int:
        """Returns 1 where the EOS token is still to be added, else 0."""
        missing = self.eos is not None and encoded.ids[-1:] != [self.eos]
        return int(encoded.piece.last and missing)

    def finished(self, encoded: _Encoded) -> _Encoded | BadLine:
        if self.owed(encoded):
            assert self.eos is not None
            encoded = _Encoded(encoded.piece, [*encoded.ids, self.eos], [*encoded.offsets, (0, 0)])
        if len(encoded.ids) < 2:
            return encoded.piece.bad(f"{len(encoded.ids)} token(s): a row needs 2 to have one that is predicted")
        if not any(end > start for start, end in encoded.offsets):
            return encoded.piece.bad("the tokenizer makes no token of this text")
        return encoded

    def cut(self, encoded: _Encoded, added: list[int]) -> list[_Piece]:
        """Returns smaller pieces; none for a single character. `added[t]` is 1 on tokens that the tokenizer added."""
        piece, owed, special = encoded.piece, self.owed(encoded), sum(added)
        whole = piece.document.whole_file
        room = self.max_length - special
        content = zip(encoded.offsets, added, strict=True)
        starts = list(accumulate((offset[0] for offset, mask in content if not mask), max))
        wanted = min(4, room // 2)  # more than the 2 needed: a part alone may have fewer tokens than within the text
        middle, last = max(2 - special, 1), max(2 - special - owed, 1)
        budget = Room(room, room - owed, max(wanted, middle), max(wanted, last), middle, last)
        text = piece.text
        at = cuts(text, starts, budget, piece.spans.get(ANSWER, ()))
        line, seen, parts = piece.line, 0, []
        for start, end in pairwise([0, *at, len(text)]):
            if (tight := tighten(text, (start, end))) and at:
                line += text.count("\n", seen, tight[0]) if whole else 0
                seen = tight[0]
                parts.append(_Piece(piece.document, piece.start + tight[0], piece.start + tight[1], line, False))
        return [*parts[:-1], replace(parts[-1], last=piece.last)] if parts else []


def make_rows(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, *, max_length: int, add_eos: bool = True
) -> Made:
    """Turns documents into rows of at most `max_length` tokens, in the order of the documents.

    A row begins and ends with the tokens that the tokenizer adds by itself; the last row of a document also ends
    with the EOS token when there is one and `add_eos`. Where two rows have the same text the first is
    kept, with the columns of both. Raises ValueError when `max_length` is too short for any row.
    """
    fingerprint = tokenizer_fingerprint(tokenizer)
    shortest = tokenizer.num_special_tokens_to_add() + 3
    if max_length < shortest:
        raise ValueError(f"max_length: expected at least {shortest} tokens with this tokenizer, got {max_length}")
    eos: Any = tokenizer.eos_token_id if add_eos else None
    encoder = _Encoder(tokenizer, max_length, eos)
    kept: dict[str, Row] = {}
    bad: list[BadLine] = []
    used: set[int] = set()  # documents by identity: two may stand on one line
    split: set[int] = set()
    repeated = 0
    for begin in range(0, len(documents), _BATCH):
        part = documents[begin : begin + _BATCH]
        for made in encoder.encode([_Piece(doc, 0, len(doc.text), doc.line) for doc in part]):
            if isinstance(made, BadLine):
                bad.append(made)
                continue
            text, document = made.piece.text, made.piece.document
            used.add(id(document))
            if not made.piece.last:
                split.add(id(document))
            repeated += text in kept
            row = kept.get(text) or _row(made, row_id(text, fingerprint))
            kept[text] = _marked(row, made.piece.spans)
    return Made(tuple(kept.values()), tuple(bad), len(used), len(split), repeated)


def _row(made: _Encoded, identity: str) -> Row:
    source = f"{made.piece.document.file}:{made.piece.line}"
    return Row(identity, tuple(made.ids), made.piece.text, tuple(made.offsets), source=source)


def _marked(row: Row, marks: Mapping[str, Sequence[Span]]) -> Row:
    """Adds a column per name: 1 on every token of which a character lies in one of the spans."""
    columns = dict(row.columns)
    for name, spans in marks.items():
        before = columns.get(name, (0.0,) * len(row))
        here = (float(any(overlap(place, span) for span in spans)) for place in row.offsets)
        columns[name] = tuple(map(max, before, here))
    return replace(row, columns=columns) if marks else row
