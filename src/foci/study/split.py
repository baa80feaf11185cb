"""Parts questions by their evidence: facts to learn, which are studied, and held-out facts, which are read alone."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from foci.study.checks import Question, Rewrite, content, folded, tells


@dataclass(frozen=True)
class Fact:
    """The questions whose evidence has a sentence in common: what is learned of one may be asked by another."""

    questions: tuple[Question, ...]

    @property
    def evidence(self) -> str:
        """The evidence of the first question."""
        return self.questions[0].evidence


@dataclass(frozen=True)
class Split:
    """Facts by side, and the questions by use.

    `asked` are probes to learn and `held` held-out probes; `studied` are (question, wording) pairs to train on. No
    wording of a probe is studied, and nothing of a held-out fact.
    """

    learn: tuple[Fact, ...]
    held_out: tuple[Fact, ...]
    asked: tuple[Question, ...]
    held: tuple[Question, ...]
    studied: tuple[tuple[Question, str], ...]


def facts_of(questions: Sequence[Question]) -> list[Fact]:
    """Returns the facts, in the order of their first questions.

    Two questions are of one fact where their evidence overlaps in a passage, or is the same in two passages.
    """
    parent = list(range(len(questions)))

    def root(n: int) -> int:
        while parent[n] != n:
            n = parent[n]
        return n

    by_place: dict[str, list[int]] = {}
    by_text: dict[str, int] = {}
    for n, one in enumerate(questions):
        others = [m for m in by_place.setdefault(one.passage.id, []) if _overlap(one, questions[m])]
        others += [by_text.setdefault(folded(one.evidence), n)]
        by_place[one.passage.id].append(n)
        for m in others:
            a, b = sorted((root(n), root(m)))
            parent[b] = a
    groups: dict[int, list[Question]] = {}
    for n, one in enumerate(questions):
        groups.setdefault(root(n), []).append(one)
    return [Fact(tuple(some)) for some in groups.values()]


def _overlap(one: Question, other: Question) -> bool:
    return max(one.span[0], other.span[0]) < min(one.span[1], other.span[1])


def parted(questions: Sequence[Question], share: float, seed: int, dropped: Counter[str]) -> Split:
    """Parts the questions; about a `share` of the facts is held out, passage by passage, chosen by the seed.

    Where there are two facts or more, and `share` is not 0, at least one is held out and at least one is not. A
    question to learn that tells a held-out fact is dropped, and counted.
    """
    facts = facts_of(questions)
    order = sorted(facts, key=lambda fact: (_drawn(seed, fact.questions[0].passage.id), _drawn(seed, fact.evidence)))
    count = min(max(1, round(share * len(facts))), len(facts) - 1) if share else 0
    chosen = {id(fact) for fact in order[:count]}
    held_out = [fact for fact in facts if id(fact) in chosen]
    held = [one for fact in held_out for one in fact.questions]
    telling = Telling(held)
    learn: list[Fact] = []
    for fact in (fact for fact in facts if id(fact) not in chosen):
        kept = tuple(one for one in fact.questions if not telling.tells(_said(one), one.passage.id))
        dropped["tells a held-out fact"] += len(fact.questions) - len(kept)
        learn += [Fact(kept)] if kept else []
    asked, studied = _uses(learn, seed)
    place = {id(one): n for n, one in enumerate(questions)}
    asked.sort(key=lambda one: place[id(one)])
    studied.sort(key=lambda pair: place[id(pair[0])])
    probes = {folded(wording) for one in (*asked, *held) for wording in _asked_wordings(one, asked)}
    studied = [(one, wording) for one, wording in studied if folded(wording) not in probes]
    return Split(tuple(learn), tuple(held_out), tuple(asked), tuple(held), tuple(studied))


def _drawn(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/study/{name}".encode()).hexdigest()


def _said(question: Question) -> str:
    return " ".join((*question.wordings, question.answer))


def _asked_wordings(question: Question, asked: Sequence[Question]) -> tuple[str, ...]:
    """Returns the wordings that no row may have: of a held-out question all, else that of the probe."""
    return (question.question,) if question in asked else question.wordings


def _uses(facts: Sequence[Fact], seed: int) -> tuple[list[Question], list[tuple[Question, str]]]:
    """Returns the probes to learn, and the wordings to train on.

    A question in two wordings is asked in one and studied in the other. Of questions in one wording every second one
    is asked, the others are studied; those of one fact stand next to each other.
    """
    asked, studied, single = list[Question](), list[tuple[Question, str]](), 0
    for fact in sorted(facts, key=lambda fact: _drawn(seed, f"use/{fact.evidence}")):
        for one in fact.questions:
            if one.again:
                asked.append(one)
                studied.append((one, one.again))
            elif single % 2:
                studied.append((one, one.question))
            else:
                asked.append(one)
            single += not one.again
    return asked, studied


class Telling:
    """Finds texts that tell a held-out fact. It looks at those facts alone whose words a text has."""

    def __init__(self, held: Sequence[Question]) -> None:
        self._by_passage: dict[str, list[Question]] = {}
        self._by_word: dict[str, list[Question]] = {}
        for one in held:
            self._by_passage.setdefault(one.passage.id, []).append(one)
            for word in content(one.answer) or {folded(one.answer)}:
                self._by_word.setdefault(word, []).append(one)

    def tells(self, text: str, passage: str) -> bool:
        """Returns whether a text on the passage of this id tells a held-out fact."""
        if any(tells(text, one, same_passage=True) for one in self._by_passage.get(passage, ())):
            return True
        words = {*content(text), *folded(text).split()}
        near = {id(one): one for word in words for one in self._by_word.get(word, ())}
        return any(tells(text, one, same_passage=False) for one in near.values())

    def quotes(self, text: str, passage: str) -> bool:
        """Returns whether a text on the passage of this id has the wording of a question on it."""
        said = folded(text)
        return any(folded(one.question) in said for one in self._by_passage.get(passage, ()))

    def without(self, rewrites: Sequence[Rewrite], dropped: Counter[str]) -> list[Rewrite]:
        """Returns the rewrites but those that tell a held-out fact, and counts these."""
        kept = [one for one in rewrites if not self.tells(one.text, one.passage.id)]
        dropped["tells a held-out fact"] += len(rewrites) - len(kept)
        return kept
