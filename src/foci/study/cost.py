"""Says what requests cost: tokens, and money where prices are given, estimated before and counted after."""

from collections.abc import Sequence
from dataclasses import dataclass

from foci.study.prompts import Request
from foci.study.settings import Settings
from foci.study.store import Reply
from foci.system.words import form

CHARACTERS = 4
"""Characters of a token, in an estimate."""
PER_QUESTION, PER_SENTENCE, PER_WORD = 80, 30.0, 1.3
"""Tokens of a question with its answer and evidence, of one without evidence, and of a word, in an estimate."""


@dataclass
class Cost:
    """Requests, and tokens read (in) and written (out) by the writer; `unknown` counts replies without numbers."""

    requests: int = 0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    unknown: int = 0

    def add(self, reply: Reply) -> None:
        """Counts an answered request."""
        self.requests += 1
        self.tokens_in += reply.tokens_in or 0
        self.tokens_out += reply.tokens_out or 0
        self.unknown += reply.tokens_in is None or reply.tokens_out is None

    def words(self, settings: Settings) -> str:
        """Says the tokens, and the money where prices are given."""
        said = f"{self.tokens_in:,.0f} {form(self.tokens_in, 'token')} read and {self.tokens_out:,.0f} written"
        if settings.price_in is None and settings.price_out is None:
            return said
        money = (self.tokens_in * (settings.price_in or 0) + self.tokens_out * (settings.price_out or 0)) / 1e6
        return (
            f"{said}, which cost {money:,.4f} at {settings.price_in or 0:g} and {settings.price_out or 0:g} a million"
        )


def estimated(requests: Sequence[Request], settings: Settings, *, rewrites: int = 0, words: float = 0.0) -> Cost:
    """Returns the cost of requests that are still to be asked, and of so many rewrites of about `words` words each."""
    cost = Cost(len(requests) + rewrites)
    for request in requests:
        cost.tokens_in += sum(len(message["content"]) for message in request.messages()) / CHARACTERS
        cost.tokens_out += _written(request, settings)
    cost.tokens_in += rewrites * (PER_WORD * words + 160)
    cost.tokens_out += rewrites * PER_WORD * words
    return cost


def _written(request: Request, settings: Settings) -> float:
    if request.kind == "question":
        return PER_SENTENCE
    return float(PER_QUESTION * settings.questions) if request.kind == "questions" else PER_WORD * request.passage.words
