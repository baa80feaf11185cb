"""The prompts of a writer: they ask for questions on a passage or on a sentence, and for rewrites of a passage."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Literal

from foci.corpus.sentences import one_line, sentences
from foci.study.passages import Passage

Kind = Literal["questions", "question", "rewrite"]

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
_QUESTION = "Write a question that this sentence answers, and the answer: {sentence}"
_ANSWERED = "Question: {question}\nAnswer: {answer}"
_SHOWN = (
    ("After long talks the observatory at Lindau was opened in 1931.",
     "In which year was the observatory at Lindau opened?", "1931"),
    ("Visitors of the observatory may come on the first Friday of each month; children pay half.",
     "On which day may visitors come to the observatory?", "the first Friday of each month"),
    ("Its dome is 14 metres wide and was paid for by the brewer Karl Ott.",
     "Who paid for the dome of the observatory?", "Karl Ott"),
)  # fmt: skip
"""Sentences with a question and its answer, which a writer of single questions is shown first."""
_LEAST = 5
"""Words of a sentence that is asked about, at least."""
TOKENS = {"per question": 110, "per word": 2.0, "more": 60, "one question": 70}
"""How many tokens a reply may have: per question or per word of the passage, and some more."""


@dataclass(frozen=True)
class Request:
    """One prompt for a writer, about a passage, and the most tokens of the reply.

    `shown` are prompts with their replies that the writer is shown first. `evidence` is the sentence that the prompt
    is about, "" where it is about the whole passage.
    """

    kind: Kind
    passage: Passage
    prompt: str
    max_tokens: int
    question: str = ""
    evidence: str = ""
    shown: tuple[tuple[str, str], ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """Returns the messages of a chat whose next message is the reply."""
        turns = [(role, text) for pair in self.shown for role, text in zip(("user", "assistant"), pair, strict=True)]
        return [{"role": role, "content": text} for role, text in (*turns, ("user", self.prompt))]

    def key(self, writer: str) -> str:
        """Returns the hash of all that the reply depends on: passage, prompt, writer and settings."""
        parts = (self.kind, self.passage.text, self.prompt, self.max_tokens, writer, *self.shown)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def questions_on(passage: Passage, count: int) -> Request:
    """Returns the request for `count` questions on a passage."""
    prompt = _QUESTIONS.format(count=count, title=_titled(passage), text=passage.text)
    return Request("questions", passage, prompt, int(TOKENS["per question"] * count + TOKENS["more"]))


def question_on_each(passage: Passage, count: int) -> list[Request]:
    """Returns requests for one question each, on `count` sentences of a passage; those with a name or number first."""
    whole = [one_line(passage.text[start:end]) for start, end in sentences(passage.text)]
    long = [one for one in dict.fromkeys(whole) if len(one.split()) >= _LEAST and not one.startswith("#")]
    chosen = sorted(sorted(long, key=lambda one: not re.search(r"\d|\w.*\b[A-Z]", one))[:count], key=long.index)
    shown = tuple((_QUESTION.format(sentence=s), _ANSWERED.format(question=q, answer=a)) for s, q, a in _SHOWN)
    return [
        Request("question", passage, _QUESTION.format(sentence=one), int(TOKENS["one question"]), "", one, shown)
        for one in chosen
    ]


def rewrite_for(passage: Passage, question: str, answer: str) -> Request:
    """Returns the request for a rewrite of a passage that focuses on a question."""
    prompt = _REWRITE.format(
        words=max(40, passage.words), question=question, answer=answer, title=_titled(passage), text=passage.text
    )
    return Request("rewrite", passage, prompt, int(TOKENS["per word"] * passage.words + TOKENS["more"]), question)


def _titled(passage: Passage) -> str:
    return f"The text stands under: {passage.title}" if passage.title else ""
