"""Rehearses the corpus' own sentences as questions: the same facts, said in more ways, by rule.

A fact that is read in one wording is known in that wording alone. In every epoch each text gets a study row: its
sentences in another order, each as a question whose answer is the part that matters. Only the answers have weight. No
sentence is invented: a blank or the word "what" stands where the answer stood.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from numpy.random import Generator

from foci.corpus import row_id, tokenizer_fingerprint
from foci.corpus.sentences import is_prose, known_names, names_of, one_line, sentences, spans_of
from foci.corpus.split import Span
from foci.corpus.store import groups
from foci.corpus.stored import RowWriter, written
from foci.focus import UNWEIGHTED, Context, MixesRows, Prepares, Row
from foci.methods._prepared import Prepared
from foci.methods._rehearsal import rehearsed, rehearsed_places
from foci.methods.train_attention.method import COLUMN as WEIGHER
from foci.methods.train_attention.weigher import READY_MADE, load, weigh_rows
from foci.models import max_length
from foci.rows import lengths_of, texts_of
from foci.rows import names_of as columns_of
from foci.system.words import counted

Form = Literal["blank", "what", "statement"]
PIECES = "pieces"


@dataclass(frozen=True)
class Piece:
    """A question with its answer, tokenized; `answer[t]` says whether token t belongs to the answer."""

    input_ids: tuple[int, ...]
    answer: tuple[bool, ...]


@dataclass(frozen=True)
class Study(Prepares):
    """Adds study rows to every epoch: sentences of the corpus as questions, with weight on the answers alone.

    An epoch has `ratio` study rows per text. `spans` says what is asked for: "names", the names, numbers and dates of a
    sentence, and in a sentence with nothing but its subject the heaviest words; "weigher", all words with at least
    `share` of their row's largest weight; or "answers", the marked answers of the corpus. Weights come from the
    train_attention that stands before it in the arm, or else from the weigher that comes with foci. `forms` are "blank"
    (a blank where the answer stood), "what" (that word) and "statement" (the sentence by itself).
    """

    ratio: float = 1.0
    spans: Literal["names", "weigher", "answers"] = "names"
    share: float = 0.4
    forms: tuple[Form, ...] = ("blank", "what", "statement")

    def __post_init__(self) -> None:
        if not 0 < self.ratio < float("inf") or not 0 < self.share <= 1:
            raise ValueError(
                "study expected ratio > 0 study rows per text and a share above 0 and at most 1, got ratio "
                f"{self.ratio!r} and share {self.share!r}"
            )
        if not self.forms:
            raise ValueError('study expected at least one form of "blank", "what", "statement", got none')

    def added(self, new: int) -> int:
        """Returns the study rows of an epoch of `new` texts, where each has something to ask for."""
        return rehearsed(new, self.ratio)

    def prepare(self, context: Context) -> tuple["StudyRows", Sequence[Row]]:
        """Finds what to ask for in every sentence. Sentences that hold a prompt of the run's probes are left out.

        Raises ValueError where rows have no text, or no marked answers though those are asked for. Where nothing else
        is found there are no study rows, and the summary says so.
        """
        if not any(row.text and row.offsets for row in context.rows):
            raise ValueError("study asks for parts of sentences, and no row has a text; make the rows of text")
        weights = self._weights(context)
        known, writer, parts = known_names(texts_of(context.rows)), RowWriter(context.folder), 0
        for row, column in zip(context.rows, weights, strict=True):
            found = tuple(self._pieces(row, column, known, context))
            if together := _together(list(chain.from_iterable(found))):
                writer.add(together)
                parts += len(found)
        texts = writer.rows()
        if not texts and self.spans == "answers":
            raise ValueError(
                f"study found nothing to ask for in {counted(len(context.rows), 'row')}: no row has a marked answer; "
                "give the documents answer_spans, or leave out spans: answers"
            )
        start = tuple(context.tokenizer("").input_ids)
        return StudyRows(
            self,
            texts,
            parts,
            start[:1] if start and start[0] == context.tokenizer.bos_token_id else (),
            int(lengths_of(context.rows).max()),
            tokenizer_fingerprint(context.tokenizer),
        ), context.rows

    def _weights(self, context: Context) -> Iterator[Sequence[float]]:
        """Yields what says, per row and token, what is worth asking for."""
        name = "answer" if self.spans == "answers" else WEIGHER
        if self.spans != "answers" and name not in columns_of(context.rows):
            weigher = load(READY_MADE)
            for group in groups(context.rows):
                yield from weigh_rows(weigher, group, context.tokenizer)  # type: ignore[arg-type]
        else:
            yield from (row.columns.get(name, (0.0,) * len(row)) for row in context.rows)

    def _pieces(
        self, row: Row, weights: Sequence[float], known: frozenset[str], context: Context
    ) -> Iterator[tuple[Piece, ...]]:
        """Yields each thing to ask for, in every form. `known` are the words that are names wherever they stand."""
        most = max((w for (a, b), w in zip(row.offsets, weights, strict=False) if a < b), default=0.0)
        if not most:
            return
        for begin, end in sentences(row.text):
            sentence = row.text[begin:end]
            if not is_prose(sentence) or _is_asked(sentence, context):
                continue
            heavy = [
                ((a - begin, b - begin), weight)
                for (a, b), weight in zip(row.offsets, weights, strict=True)
                if begin <= a < b <= end
            ]
            for span in self._asked(sentence, heavy, self.share * most, known):
                forms = tuple(_piece(_parts(sentence, span, form), context) for form in self.forms)
                if max(len(piece.input_ids) for piece in forms) < max_length(context.model):
                    yield forms

    def _asked(
        self, sentence: str, heavy: Sequence[tuple[Span, float]], floor: float, known: frozenset[str]
    ) -> list[Span]:
        """Returns the parts of a sentence that are asked for."""
        if self.spans != "names" or not known:
            return spans_of(sentence, [span for span, weight in heavy if weight >= floor])
        names = names_of(sentence, known)
        if len(names) != 1:
            return [span for span in names if span[0] > len(sentence) - len(sentence.lstrip())] or names
        (subject,) = names
        rest = [(span, weight) for span, weight in heavy if span[1] <= subject[0] or span[0] >= subject[1]]
        most = max((weight for _, weight in rest), default=0.0)
        if not most or subject[0] > len(sentence) // 2:
            return names
        return spans_of(sentence, [span for span, weight in rest if weight >= 0.8 * most])[:1]


def _is_asked(sentence: str, context: Context) -> bool:
    """Returns whether a sentence holds a prompt of the run's probes, or the evidence of one that is held out."""
    line = one_line(sentence)
    return any(prompt in sentence for prompt in context.asked) or any(held in line for held in context.held_out)


def _parts(sentence: str, span: Span, form: Form) -> list[tuple[str, bool]]:
    """Returns the pieces of text of a question and its answer, each with whether it is the answer."""
    before, answer, after = sentence[: span[0]].lstrip(), sentence[span[0] : span[1]], sentence[span[1] :].rstrip()
    before, answer, after = (re.sub(r"\s*\n\s*", " ", part) for part in (before, answer, after))
    if form == "statement":
        return [(before, False), (answer, True), (f"{after}\n", False)]
    asked = f"{before}____{after}" if form == "blank" else f"{before}what{after.rstrip('.!?')}?"
    return [(f"Question: {asked}\nAnswer:", False), (f" {answer}\n", True)]


def _piece(parts: Sequence[tuple[str, bool]], context: Context) -> Piece:
    encoded = context.tokenizer(
        "".join(text for text, _ in parts), add_special_tokens=False, return_offsets_mapping=True
    )
    edges, at = list[Span](), 0
    for text, is_answer in parts:
        edges += [(at, at + len(text))] if is_answer else []
        at += len(text)
    answer = (any(a < end and b > start for start, end in edges) for a, b in encoded.offset_mapping)
    return Piece(tuple(encoded.input_ids), tuple(answer))


def _together(pieces: Sequence[Piece]) -> Row:
    """Returns pieces as one row, which may lie on disk; a token of piece n has 2 n in the column, 2 n + 1 if answer."""
    ids = tuple(chain.from_iterable(piece.input_ids for piece in pieces))
    marks = (2.0 * number + is_answer for number, piece in enumerate(pieces) for is_answer in piece.answer)
    return Row("", ids, columns={PIECES: tuple(marks)})


def _apart(row: Row, number: int) -> Piece:
    """Returns a piece of `_together`."""
    marks = row.columns[PIECES]
    first, last = bisect_left(marks, 2 * number), bisect_left(marks, 2 * number + 2)
    return Piece(row.input_ids[first:last], tuple(mark % 2 == 1 for mark in marks[first:last]))


@dataclass(frozen=True, repr=False)
class StudyRows(Prepared, MixesRows):
    """Mixes in study rows: other sentences, order and forms in every epoch."""

    settings: Study
    texts: Sequence[Row] = field(repr=False)
    """By text: what it is asked for, each part in every form (`_together`)."""
    parts: int = field(repr=False)
    start: tuple[int, ...] = field(repr=False)
    longest: int = field(repr=False)
    tokenizer: str = field(repr=False)

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns `ratio` study rows per text. No text comes twice before every text came once."""
        order = rehearsed_places(len(self.texts), rehearsed(len(self.texts), self.settings.ratio), rng)
        return written(self._row(self.texts[int(number)], f"study of text:{number}", rng) for number in order)

    def _row(self, text: Row, source: str, rng: Generator) -> Row:
        """Returns a row of one text's questions in any order, as many as the longest row has room for."""
        forms = len(self.settings.forms)
        ids, unweighted = list(self.start), [1.0] * len(self.start)
        for at in rng.permutation(1 + int(text.columns[PIECES][-1]) // (2 * forms)):
            piece = _apart(text, int(at) * forms + int(rng.integers(forms)))
            if len(ids) > len(self.start) and len(ids) + len(piece.input_ids) > self.longest:
                continue
            ids += piece.input_ids
            unweighted += [0.0 if is_answer else 1.0 for is_answer in piece.answer]
        name = row_id(" ".join(map(str, ids)), self.tokenizer)
        return Row(name, tuple(ids), columns={UNWEIGHTED: tuple(unweighted)}, source=source)

    def summary(self) -> str:
        """Says how many things are asked for."""
        if not self.texts:
            return (
                "study asks for nothing: no sentence has a name, a number or a heavy word, "
                "or each holds the prompt of a probe"
            )
        parts = counted(self.parts, "part")
        return f"study asks for {parts} of sentences of {counted(len(self.texts), 'text')}"
