"""Turns documents into rows: tokenises them in batches, cuts the long ones, and carries their marks along."""

import gc
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from foci.corpus.documents import BadLine, Document, excerpt, where
from foci.corpus.plain import Encoded, encoded
from foci.corpus.plain import control_words as words_of
from foci.corpus.seen import Seen
from foci.corpus.split import Room, Span, cuts, tighten
from foci.corpus.stored import RowWriter
from foci.corpus.tokens import overlap, row_id, tokenizer_fingerprint
from foci.focus import Row

_BATCH = 1024
AHEAD = 1
"""Batches that the tokenizer reads ahead."""
_CHARACTERS = 2**20
"""Characters of a batch of documents, at most (or one document)."""
WINDOW = 2**17
"""Characters of a longer document that are tokenised at a time, at least."""
ANSWER = "answer"
"""The spans that a cut does not tear where they fit into one row."""


@dataclass(frozen=True)
class Made:
    """The rows of `make_rows` (unique ids), the pieces that gave no row, and counts.

    `documents` counts those that gave a row, `split` those that were cut, `repeated` the rows that were
    left out because another one has the same text. `by_file` counts the rows of each file.
    """

    rows: Sequence[Row]
    bad: tuple[BadLine, ...]
    documents: int
    split: int
    repeated: int
    by_file: Counter[str] = field(default_factory=Counter)


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
        return BadLine(self.document.file, self.line, reason, excerpt(self.text), self.document.place(self.start))


@dataclass(frozen=True)
class _Tokens:
    """The token ids of a piece, and the characters of its text that each token stands for."""

    piece: _Piece
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Encoder:
    """Cuts documents into pieces of at most `max_length` tokens, special tokens at both ends included.

    `eos` is the id that is put after the last token of a document (unless one of `ends` is there already); None for
    none. `control` says that control words in a text are control tokens; one of them at the end ends a document, too.

    The tokenizer reads ahead in a thread of its own, outside of Python's lock; nothing else may use it meanwhile.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    eos: int | None
    control: bool = False
    ends: frozenset[int | None] = frozenset()
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tokenizer"))

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, *, max_length: int, add_eos: bool = True, control_words: bool = False
    ) -> "Encoder":
        """Returns the encoder for the settings of `make_rows`."""
        shortest = tokenizer.num_special_tokens_to_add() + 3
        if max_length < shortest:
            raise ValueError(f"max_length: expected at least {shortest} tokens with this tokenizer, got {max_length}")
        eos: Any = tokenizer.eos_token_id if add_eos else None
        ends = frozenset((eos, *(words_of(tokenizer).values() if control_words else ())))
        return cls(tokenizer, max_length, eos, control_words, ends)

    def encode(self, pieces: Iterable[_Piece]) -> Iterator[_Tokens | BadLine]:
        """Yields the tokens of the pieces in order, each piece cut as often as needed."""
        reading = deque[tuple[list[_Piece], Future[list[Encoded]] | None]]()
        for part in _batches(pieces):
            is_long = len(part) == 1 and part[0].end - part[0].start > self.window
            reading.append((part, None if is_long else self._begun(part)))
            if len(reading) > AHEAD:
                yield from self._parts(*reading.popleft())
        while reading:
            yield from self._parts(*reading.popleft())

    def _begun(self, pieces: Sequence[_Piece]) -> "Future[list[Encoded]]":
        """Has the tokenizer begin to read pieces."""
        return self.pool.submit(encoded, [piece.text for piece in pieces], self.tokenizer, control=self.control)

    def _parts(self, pieces: Sequence[_Piece], read: "Future[list[Encoded]] | None") -> Iterator[_Tokens | BadLine]:
        return self.long(pieces[0]) if read is None else self._encode(pieces, read)

    @property
    def window(self) -> int:
        """The number of characters of a document that are tokenised at a time; they make several rows."""
        return max(WINDOW, 64 * self.max_length)

    def long(self, piece: _Piece) -> Iterator[_Tokens | BadLine]:
        """Yields the tokens of a long piece, window by window, so that memory does not grow with it.

        The last two parts of a window are read again in the next one, because a cut depends on what follows it.
        """
        size = self.window
        while piece.end - piece.start > size:
            window = replace(piece, end=_boundary(piece.document.text, piece.start, piece.start + size), last=False)
            (made,) = self._begun([window]).result()
            parts = self.cut(window, made)
            if len(parts) < 4:  # few tokens of many characters
                size *= 2
                continue
            yield from self.encode(parts[:-2])
            begin = parts[-2].start
            begin -= piece.document.text[begin - 1] == " "  # a part of the word's token
            piece = replace(piece, start=begin, line=parts[-2].line)
        yield from self._encode([piece], self._begun([piece]))

    def _encode(self, pieces: Sequence[_Piece], read: "Future[list[Encoded]]") -> Iterator[_Tokens | BadLine]:
        for piece, made in zip(pieces, read.result(), strict=True):
            if len(made.ids) - self.spared(piece, made) + self.owed(piece, made) <= self.max_length:
                yield self.finished(piece, made)
            elif parts := self.cut(piece, made):
                yield from self.encode(parts)
            else:
                yield piece.bad(f"one character of {len(made.ids)} tokens: more than max_length = {self.max_length}")

    def spared(self, piece: _Piece, made: Encoded) -> int:
        """Returns how many tokens at the end are left out: what a tokenizer adds after a text ends a document alone."""
        return 0 if piece.last else made.tail

    def owed(self, piece: _Piece, made: Encoded) -> int:
        """Returns 1 where the EOS token is still to be added, else 0."""
        return int(piece.last and self.eos is not None and self.ends.isdisjoint(made.ids[-1:]))

    def finished(self, piece: _Piece, made: Encoded) -> _Tokens | BadLine:
        """Returns the row of a piece that fits, or why it is none."""
        end = len(made.ids) - self.spared(piece, made)
        ids, offsets = made.ids[:end], made.offsets[:end]
        if self.owed(piece, made):
            assert self.eos is not None
            ids, offsets = (*ids, self.eos), (*offsets, (0, 0))
        if len(ids) < 2:
            return piece.bad(f"{len(ids)} token(s): a row needs 2 to have one that is predicted")
        if not any(end > start for start, end in offsets):
            return piece.bad("the tokenizer makes no token of this text")
        return _Tokens(piece, ids, offsets)

    def cut(self, piece: _Piece, made: Encoded) -> list[_Piece]:
        """Returns smaller pieces; none for a single character."""
        whole, before = piece.document.whole_file, made.lead
        after = made.tail + self.owed(piece, made) if piece.last else 0
        room = self.max_length - before
        begins = (start for (start, _), added in zip(made.offsets, made.added, strict=True) if not added)
        starts = list(accumulate(begins, max))
        wanted = min(4, room // 2)  # more than the 2 needed: a part alone may have fewer tokens than within the text
        middle, last = max(2 - before, 1), max(2 - before - after, 1)
        budget = Room(room, room - after, max(wanted, middle), max(wanted, last), middle, last)
        text = piece.text
        at = cuts(text, starts, budget, piece.spans.get(ANSWER, ()))
        line, seen, parts = piece.line, 0, []
        for start, end in pairwise([0, *at, len(text)]):
            if (tight := tighten(text, (start, end))) and at:
                line += text.count("\n", seen, tight[0]) if whole else 0
                seen = tight[0]
                parts.append(_Piece(piece.document, piece.start + tight[0], piece.start + tight[1], line, False))
        return [*parts[:-1], replace(parts[-1], last=piece.last)] if parts else []


def _batches(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Yields the pieces in order, at most `_BATCH` and `_CHARACTERS` characters at a time (or one piece)."""
    part, size = list[_Piece](), 0
    for piece in pieces:
        length = piece.end - piece.start
        if part and (size + length > _CHARACTERS or len(part) == _BATCH):
            yield part
            part, size = [], 0
        part.append(piece)
        size += length
        if length > WINDOW:
            yield from ([part[:-1]] if part[:-1] else [])
            yield part[-1:]
            part, size = [], 0
    if part:
        yield part


def _boundary(text: str, start: int, end: int) -> int:
    """Returns a place where words end, as near to `end` as possible: after it tokens do not change those before it."""
    for sign in ("\n", " "):
        if (at := text.rfind(sign, start + (end - start) // 2, end)) >= 0:
            return at
    return end


def make_rows(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, *, max_length: int, add_eos: bool = True,
    control_words: bool = False,
) -> Made:  # fmt: skip
    """Turns documents into rows of at most `max_length` tokens, in the order of the documents.

    Texts are read as plain text (`foci.corpus.plain`), unless their `control_words` are to be control tokens. A row
    begins with the tokens that the tokenizer puts before a text. The last row of a document, and no other, ends with
    those that it puts after one, and with the EOS token when there is one and `add_eos`. Where two rows have the same
    text the first is kept, with the columns of both. Raises ValueError when `max_length` is too short for any row.
    """
    encoder = Encoder.of(tokenizer, max_length=max_length, add_eos=add_eos, control_words=control_words)
    writer = RowWriter()
    made = add_rows(writer, documents, encoder)
    return replace(made, rows=writer.rows())


def add_rows(writer: RowWriter, documents: Iterable[Document], encoder: Encoder) -> Made:
    """Adds the rows of documents to those of a writer; see `make_rows`. Returns all else that was made."""
    fingerprint, seen, first = tokenizer_fingerprint(encoder.tokenizer), Seen(), len(writer)
    made = Made((), (), 0, 0, 0)
    bad: list[BadLine] = []
    used = split = repeated = 0
    last_used = last_split = None  # pieces of a document stand together
    encoded = encoder.encode(_Piece(doc, 0, len(doc.text), doc.line) for doc in documents)
    with encoder.pool, _uncollected():  # the pool's thread ends, also after an error
        while some := list(islice(encoded, _BATCH)):
            bad += (one for one in some if isinstance(one, BadLine))
            pieces = [one for one in some if not isinstance(one, BadLine)]
            names = [row_id(one.piece.text, fingerprint) for one in pieces]
            numbers = seen.numbered([int(name, 16) for name in names])
            for one, name, (number, is_first) in zip(pieces, names, numbers, strict=True):
                document = one.piece.document
                used += document is not last_used
                last_used = document
                if not one.piece.last:
                    split += document is not last_split
                    last_split = document
                marks = _marks(one)
                if is_first:
                    writer.add(_row(one, name, marks, writer))
                    made.by_file[document.file] += 1
                else:
                    repeated += 1
                    if marks:
                        writer.mark(first + number, marks)
    return replace(made, bad=tuple(bad), documents=used, split=split, repeated=repeated)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Lets Python not look for cycles of objects while open: rows have none, and a fifth of the time went there."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _row(made: _Tokens, identity: str, columns: dict[str, tuple[float, ...]], writer: RowWriter) -> Row:
    piece, (ids, offsets) = made.piece, writer.shared(made.ids, made.offsets)
    source = where(piece.document.file, piece.line, piece.document.place(piece.start))
    return Row(identity, ids, piece.text, offsets, columns, source)


def _marks(made: _Tokens) -> dict[str, tuple[float, ...]]:
    """Returns a column per name: 1 on every token of which a character lies in one of the spans."""
    return (
        {}
        if not made.piece.document.spans
        else {
            name: tuple(float(any(overlap(place, span) for span in spans)) for place in made.offsets)
            for name, spans in made.piece.spans.items()
        }
    )
