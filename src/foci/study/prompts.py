"""The prompts of a writer: one asks for questions on a passage, one for a rewrite that focuses on a question."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from foci.study.passages import Passage

Kind = Literal["questions", "rewrite"]

_QUESTIONS = """\
Read the text between the lines of equals signs. Write {count} questions about facts that the text states.
Each is a JSON object with these keys:
"question": a question that is understood without the text. It names the person, place or thing it asks about, and \
never says "the text", "the passage", "he", "it" or "this".
"again": the same question in other words.
"answer": the answer in a few words, copied from the text. The question does not hold it.
"evidence": the sentence of the text that gives the answer, copied word for word.
Ask for {count} different facts, in the language of the text. Write one JSON list and nothing else, such as
[{{"question": "In which year was the observatory at Lindau opened?", \
"again": "When did the Lindau observatory open?", "answer": "1931", \
"evidence": "After long talks the observatory at Lindau was opened in 1931."}}]
{title}
==========
{text}
==========
"""
_REWRITE = """\
Rewrite the text between the lines of equals signs in your own words, in at most {words} words, for a reader who asks:
{question}
The rewritten text says that the answer is "{answer}", and names whatever the question is about. It keeps names and \
numbers as they are, and adds nothing that the text does not say. Write sentences in the language of the text: no \
question, no list, no heading, no remark about the text.
{title}
==========
{text}
==========
"""
TOKENS = {"per question": 110, "per word": 2.0, "more": 60}
"""How many tokens a reply may have: per question or per word of the passage, and some more."""


@dataclass(frozen=True)
class Request:
    """One prompt for a writer, about a passage, and the most tokens of the reply."""

    kind: Kind
    passage: Passage
    prompt: str
    max_tokens: int
    question: str = ""

    def key(self, writer: str) -> str:
        """Returns the hash of all that the reply depends on: passage, prompt, writer and settings."""
        parts = (self.kind, self.passage.text, self.prompt, self.max_tokens, writer)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def questions_on(passage: Passage, count: int) -> Request:
    """Returns the request for `count` questions on a passage."""
    prompt = _QUESTIONS.format(count=count, title=_titled(passage), text=passage.text)
    return Request("questions", passage, prompt, int(TOKENS["per question"] * count + TOKENS["more"]))


def rewrite_for(passage: Passage, question: str, answer: str) -> Request:
    """Returns the request for a rewrite of a passage that focuses on a question."""
    prompt = _REWRITE.format(
        words=max(40, passage.words), question=question, answer=answer, title=_titled(passage), text=passage.text
    )
    return Request("rewrite", passage, prompt, int(TOKENS["per word"] * passage.words + TOKENS["more"]), question)


def _titled(passage: Passage) -> str:
    return f"The text stands under: {passage.title}" if passage.title else ""
