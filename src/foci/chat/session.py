"""A conversation with both models: each question is answered by both at once or in turns, then the nearest passage."""

import threading
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property

from foci.chat.adapted import BOTH, LEARNED, UNTOUCHED
from foci.chat.passages import Passage, Passages, corpus_changes, read_passages
from foci.chat.prompts import Conversation, template_of
from foci.chat.sides import SIDES, Sides, load_sides
from foci.chat.writing import Decoding, Writing
from foci.learn.chosen import Chosen
from foci.system.harmless import visible

PIECE = 8
"""Tokens that one model writes before it is the other's turn."""
TOGETHER = 2
"""Tokens that both write, when they answer in one pass, before they are shown."""


@dataclass(frozen=True)
class Piece:
    """A part of an answer: the model (0 untouched, 1 learned) and the text that it added.

    `ended` says that the answer is whole.
    """

    side: int
    text: str
    ended: bool = False


class Session:
    """Both models of an arm, and what was said to them. One question is answered at a time."""

    def __init__(self, chosen: Chosen, decoding: Decoding, *, plain: bool = False, sides: Sides | None = None) -> None:
        self.chosen, self.decoding = chosen, decoding
        self.sides = sides or load_sides(chosen)
        self.template = template_of(self.sides.tokenizer, plain=plain)
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forgets what was said."""
        self.said = [Conversation(self.sides.tokenizer, self.template) for _ in SIDES]

    @property
    def names(self) -> tuple[str, str]:
        """The names of both sides: the untouched model, and the learned one with its arm."""
        return SIDES[0], f"{SIDES[1]} ({self.chosen.arm})"

    def answer(self, question: str, stop: threading.Event | None = None) -> Generator[Piece, None, None]:
        """Yields the pieces of both answers as they are written, until both are whole or `stop` is set.

        Raises ValueError for a question that the models have no room for.
        """
        stop = stop or threading.Event()
        room = self.sides.limit - self.decoding.max_tokens
        if room < 1:
            raise ValueError(
                f"--max-tokens {self.decoding.max_tokens} leaves no room for a question: the model reads "
                f"{self.sides.limit:,} tokens; ask for fewer"
            )
        asked = [said.ids(question, room) for said in self.said]
        texts = ["", ""]
        writing = self._writing(asked)
        for piece in self._in_turns(writing, stop):
            texts[piece.side] += piece.text
            yield Piece(piece.side, visible(piece.text), piece.ended)
        for said, text in zip(self.said, texts, strict=True):
            said.keep(question, text.strip())

    def _writing(self, asked: list[tuple[int, ...]]) -> dict[int, Writing]:
        """Returns what writes the answers, by who it is that writes: both in one pass where that is possible."""
        tokenizer, models = self.sides.tokenizer, self.sides.models
        if self.sides.answer_together([len(ids) for ids in asked], self.decoding.max_tokens):
            return {BOTH: Writing(models[0], tokenizer, asked, self.decoding)}
        return {side: Writing(models[side], tokenizer, [ids], self.decoding) for side, ids in enumerate(asked)}

    def _in_turns(self, writing: dict[int, Writing], stop: threading.Event) -> Generator[Piece, None, None]:
        first = True
        while not all(one.ended for one in writing.values()):
            for who, one in writing.items():
                if one.ended:
                    continue
                self.sides.use(who)
                sides = (UNTOUCHED, LEARNED) if who == BOTH else (who,)
                open_ = [side for side, answer in zip(sides, one.answers, strict=True) if not answer.ended]
                added = one.advance(1 if first else TOGETHER if who == BOTH else PIECE)
                for side, text, answer in zip(sides, added, one.answers, strict=True):
                    if side in open_:
                        yield Piece(side, text, answer.ended)
                        if stop.is_set():
                            return
            first = False

    @cached_property
    def _passages(self) -> Passages:
        return read_passages(self.chosen.folder)

    @cached_property
    def notice(self) -> str:
        """Says that the corpus is gone or changed since the run; "" where it is as it was."""
        return visible(corpus_changes(self.chosen.folder, self.chosen.run))

    def nearest(self, question: str) -> Passage | None:
        """Returns the corpus' nearest passage, its texts as they can be shown; None where there is none."""
        found = self._passages.nearest(question)
        return found and Passage(visible(found.text), visible(found.shown), visible(found.source))
