"""Checks what a writer wrote, line by line: a question and a rewrite pass, or are dropped for one reason."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from foci.corpus.sentences import WORD, one_line, sentences
from foci.corpus.split import Span
from foci.probes.making.make import STOP
from foci.probes.scoring import PHRASED, UNSPACED, word_count
from foci.study.passages import Passage
from foci.study.replies import is_refusal

ALIKE = 0.75
"""The share of words in common from which two questions are nearly the same."""
COPIED = 0.95
"""The similarity (0 to 1) of words from which a rewrite is the passage itself."""
LONGEST_ANSWER, LONGEST_QUESTION, LONGEST_EVIDENCE = 12, 40, 120
"""Words of an answer, a question and its evidence, at most."""
TOO_LONG = 1.5
"""The length of a rewrite in passages, beside 20 words, from which it is much too long."""

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-",
                         "\u2011": "-", "\u00a0": " ", "\u202f": " "})  # fmt: skip
_SPACED = rf"[^\W{UNSPACED}{PHRASED}]"
"""A letter or digit of a word with spaces around it."""
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
"""Korean letters: particles are written together with the word before them."""
_ENDS = ("?", "\uff1f", "\u061f", ";", "\u037e")
_POINTS = re.compile(
    r"\b(?:the|this|that|your|given|following|above|provided) (?:\w+ )?(?:passage|text|excerpt|paragraph|article|"
    r"snippet|extract|author|writer|narrator|context|sentence|statement)s?\b"
    r"|\baccording to (?:it|this|the (?:document|page|section|chapter|information))\b"
    r"|\b(?:mentioned|described|listed|stated|discussed) (?:above|below|here|in (?:the|this))\b"
    r"|\b(?:this|these|aforementioned|the (?:former|latter))\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\b(?:he|she|it|they|him|her|hers|his|its|them|their|theirs)\b", re.IGNORECASE)
_DETERMINERS = frozenset(("the", "a", "an", "each", "every", "our", "your", "all", "any", "some"))
_MEASURES = frozenset(
    f"{word}{ending}"
    for word in ("year", "month", "week", "day", "hour", "minute", "second", "date", "time", "place", "name", "number",
                 "kind", "type", "sort", "amount", "reason", "franc", "dollar", "euro", "metre", "meter", "mile")
    for ending in ("", "s")
)  # fmt: skip
"""Nouns that are asked for, and to which no pronoun of a question refers."""
_EMPTY_IT = re.compile(
    r"it\b(?: [a-z]+ly| really| be| usually)* (?:take|cost|possible|necessary|allowed|required|important|forbidden|"
    r"advisable|best|safe)\b.{0,60}\b(?:to|for|that)\b",
    re.IGNORECASE,
)
"""The word "it" where it stands for what follows: "How long does it take to renew a permit?"."""
_ASKING = frozenset(("who", "whom", "whose", "what", "which", "when", "where", "why", "how", "many", "much", "year"))
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True)
class Question:
    """A question on a passage that passed: in one wording or two, with its answer and the sentences that give it.

    `again` is the other wording, "" for none. `span` are the characters [start, end) of `evidence` in the passage.
    """

    passage: Passage
    question: str
    again: str
    answer: str
    evidence: str
    span: Span

    @property
    def wordings(self) -> tuple[str, ...]:
        """The question in every wording."""
        return (self.question, self.again) if self.again else (self.question,)


@dataclass(frozen=True)
class Rewrite:
    """A rewrite that passed: another text of a passage, and the question on which it focuses."""

    passage: Passage
    text: str
    question: Question


def folded(text: str) -> str:
    r"""Returns a text as it is compared: on one line, in small letters, with plain quotes and hyphens.

    >>> folded("The  “Old\n Mill”")
    'the "old mill"'
    """
    return one_line(text.translate(_QUOTES)).casefold()


def holds(text: str, part: str) -> bool:
    """Returns whether a text holds another one as whole words and whole numbers; both are folded.

    >>> holds("Opened in 1931.", "1931"), holds("Opened in 19311.", "1931")
    (True, False)
    >>> holds("It had 1,931 men.", "931"), holds("It cost 2.50.", "50"), holds("At -5 degrees.", "5")
    (False, False, False)
    >>> holds("工場は1987年に開いた。", "1987年"), holds("工場は1987年に開いた。", "87年")
    (True, False)
    """
    inner = folded(part).strip(" .,;:!?\"'()")
    before = rf"(?<!{_SPACED})" if re.match(_SPACED, inner) else ""
    after = rf"(?!{_SPACED})" if re.match(_SPACED, inner[-1:]) and not _HANGUL.match(inner[-1:]) else ""
    if inner[:1].isdigit():  # neither the end of a number nor a number without its sign; 1931-1950 are two
        before += r"(?<!\d[.,:])(?<!(?<!\w)-)"
    if inner[-1:].isdigit():
        after += r"(?![.,:]\d)"
    return bool(inner) and re.search(before + re.escape(inner) + after, folded(text)) is not None


def content(text: str) -> frozenset[str]:
    """Returns the words of a text but those that say nothing by themselves."""
    return frozenset(word for word in WORD.findall(folded(text)) if word not in STOP)


def place_of(evidence: str, text: str) -> Span | None:
    r"""Returns the sentences of a text, characters [start, end), in which a quotation stands; None where it does not.

    White space and the forms of quotes and hyphens do not count; letters do.

    >>> place_of("opened in  1931", "It is old. It was opened in\n1931. It is big.")
    (11, 33)
    """
    quoted = one_line(evidence.translate(_QUOTES)).strip("\"'").strip()
    words = quoted.split(" ")
    found = re.search(r"\s+".join(map(re.escape, words)), text.translate(_QUOTES)) if quoted else None
    if found is None:
        return None
    around = [(a, b) for a, b in sentences(text) if a < found.end() and b > found.start()]
    start, end = around[0][0], around[-1][1]
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip())


def question_of(item: dict[str, str], passage: Passage) -> Question | str:
    """Returns a question that passed, or the reason why it is dropped."""
    question, place = _bare(item["question"]), place_of(item["evidence"], passage.text)
    if place is None:
        return "evidence not in the passage"
    evidence = one_line(passage.text[place[0] : place[1]])
    answer = _without_stop(item["answer"].strip(" \"'"), evidence)
    reason = _wrong_answer(answer, evidence) or _wrong_question(question, answer)
    if reason:
        return reason
    answer = _as_written(answer, evidence)
    again = _bare(item.get("again", ""))
    if again and (_wrong_question(again, answer) or folded(again) == folded(question)):
        again = ""
    return Question(passage, question, again, answer, evidence, place)


def _as_written(answer: str, evidence: str) -> str:
    """Returns an answer in the capitals and small letters of its evidence, where it stands there.

    >>> _as_written("otto arlenson", "It was built by Otto Arlenson.")
    'Otto Arlenson'
    """
    if answer in evidence:
        return answer
    found = re.search(re.escape(answer), evidence, re.IGNORECASE)
    return answer if found is None else found.group()


def _bare(question: str) -> str:
    """Returns a question without a number or a label before it."""
    return re.sub(r"^\s*(?:\d{1,2}[.)]|Q(?:uestion)?\s*\d*\s*:)\s*", "", one_line(question), flags=re.IGNORECASE)


def _without_stop(answer: str, evidence: str) -> str:
    """Returns an answer without the full stop of a sentence; the dot of an abbreviation ("5 p.m.") stays."""
    bare = answer.rstrip(".")
    if bare == answer:
        return answer
    ends = {start + len(evidence[start:end].rstrip()) for start, end in sentences(evidence)}
    inside = any(found.end() not in ends for found in re.finditer(re.escape(f"{bare}."), evidence))
    return f"{bare}." if inside or re.search(r"\b\w\.\w\Z", bare) else bare


def _wrong_answer(answer: str, evidence: str) -> str:
    if not answer or not any(letter.isalnum() for letter in answer):
        return "empty answer"
    if word_count(answer) > LONGEST_ANSWER:
        return "answer too long"
    if word_count(evidence) > LONGEST_EVIDENCE:
        return "evidence too long"
    return "" if holds(evidence, answer) else "answer not in the evidence"


def _wrong_question(question: str, answer: str) -> str:
    """Returns why a question cannot be asked; "" where it can."""
    if not question.endswith(_ENDS) or not 3 <= word_count(question) + len(question) // 12 <= LONGEST_QUESTION + 20:
        return "not a question"
    if not stands_alone(question):
        return "does not stand alone"
    known, asked = content(answer), content(question)
    if holds(question, answer) or (known and known <= asked):
        return "the question holds the answer"
    return ""


def stands_alone(question: str) -> bool:
    """Returns whether a question is understood without a text: it points to none, and its pronouns have a name.

    >>> stands_alone("When was it opened?"), stands_alone("What does the passage say about Bern?")
    (False, False)
    >>> stands_alone("When did Ada Bell leave her village?"), stands_alone("How long does it take to renew a permit?")
    (True, True)
    """
    if _POINTS.search(question):
        return False
    found = _PRONOUN.search(question)
    if found is None or _names_something(question[: found.start()]):
        return bool(content(question))
    return _EMPTY_IT.match(question[found.start() :]) is not None


def _names_something(before: str) -> bool:
    """Returns whether words before a pronoun have a name or a noun to which it may refer."""
    words = WORD.findall(before)
    for number, word in enumerate(words):
        small = word.lower()
        if small in _MEASURES or small in STOP:
            continue
        is_name = number > 0 and word[0].isupper()
        is_plural = word.islower() and len(word) > 3 and word.endswith("s")
        if is_name or is_plural or (number and words[number - 1].lower() in _DETERMINERS):
            return True
    return False


def without_repeats(questions: Sequence[Question], dropped: Counter[str]) -> list[Question]:
    """Returns the questions but those that repeat another one, and counts these.

    A question that has other answers elsewhere does not stand alone, so it goes, wherever it is asked.
    """
    answers: dict[str, set[str]] = {}
    for one in questions:
        answers.setdefault(folded(one.question), set()).add(folded(one.answer))
    kept: list[Question] = []
    by_word: dict[str, list[int]] = {}
    for one in questions:
        words = content(one.question)
        near = {n for word in words for n in by_word.get(word, ())}
        if len(answers[folded(one.question)]) > 1:
            dropped["asked with different answers"] += 1
        elif any(_alike(one, kept[n]) for n in sorted(near)):
            dropped["like another question"] += 1
        else:
            for word in words:
                by_word.setdefault(word, []).append(len(kept))
            kept.append(one)
    return kept


def _alike(one: Question, other: Question) -> bool:
    """Returns whether two questions ask the same: in nearly the same words, with the same numbers or answers."""
    words, others = content(one.question), content(other.question)
    if len(words & others) < ALIKE * len(words | others):
        return False
    return folded(one.answer) == folded(other.answer) or _asked_for(one.question) == _asked_for(other.question)


def _asked_for(question: str) -> set[str]:
    """Returns the question words, the numbers, and the words with a capital behind the first word."""
    words = WORD.findall(question)
    names = {word for word in words[1:] if word[0].isupper()} | {word for word in words if word[0].isdigit()}
    return names | {word.lower() for word in words if word.lower() in _ASKING}


def rewrite_of(text: str, question: Question) -> Rewrite | str:
    """Returns a rewrite that passed, or the reason why it is dropped."""
    passage, size = question.passage, word_count(text)
    numbers = {*_NUMBER.findall(f"{passage.text} {passage.title}")}
    reasons = {
        "empty": not any(letter.isalnum() for letter in text),
        "the writer refused": is_refusal(text),
        "much too long": size > TOO_LONG * passage.words + 20,
        "the passage itself": _is_copy(text, passage.text),
        "the answer is not in it": not holds(text, question.answer),
        "a number that the passage does not have": not {*_NUMBER.findall(text)} <= numbers,
    }
    return next((reason for reason, is_so in reasons.items() if is_so), None) or Rewrite(passage, text, question)


def _is_copy(text: str, passage: str) -> bool:
    one, other = folded(text), folded(passage)
    if one in other:
        return True
    return SequenceMatcher(None, one.split(" "), other.split(" "), autojunk=False).ratio() >= COPIED


def tells(text: str, question: Question, *, same_passage: bool) -> bool:
    """Returns whether a text says the fact of a question: its answer, and most words of the question.

    Of a text on the same passage the answer alone is enough, or the wording of the question.
    """
    if any(folded(wording) in folded(text) for wording in question.wordings):
        return True
    if not holds(text, question.answer):
        return False
    asked = content(question.question)
    return same_passage or len(asked & content(text)) >= 0.6 * len(asked)


def repeats(rewrites: Iterable[Rewrite], dropped: Counter[str]) -> list[Rewrite]:
    """Returns the rewrites but those whose text another one has, and counts these."""
    kept: dict[str, Rewrite] = {}
    for one in rewrites:
        if folded(one.text) in kept:
            dropped["like another rewrite"] += 1
        else:
            kept[folded(one.text)] = one
    return list(kept.values())
