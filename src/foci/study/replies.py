"""Finds questions in a writer's reply: JSON, also fenced, cut off or with words around it, or labelled lines."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from foci.corpus.sentences import one_line

HALF, NO_JSON, REFUSED, INCOMPLETE = (
    "half a JSON object",
    "no questions in the reply",
    "the writer refused",
    "no question, answer or evidence",
)
"""Reasons why a part of a reply is no question."""

_NAMES = {
    "question": ("question", "q"),
    "again": ("again", "paraphrase", "question_again"),
    "answer": ("answer", "a"),
    "evidence": ("evidence", "quote"),
}
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_BEGUN_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
"""The rest of a thought that a chat template began in the prompt."""
_FENCED = re.compile(r"```[a-zA-Z]*[^\S\n]*\n((?:(?!```).)*)(?:```)?", re.DOTALL)
_REFUSAL = re.compile(
    r"\s*(?:(?:i'm|i am) (?:sorry|unable|not able|afraid)|sorry\b|i (?:can(?:no|')t|won't|must decline)|"
    r"as an? (?:ai|language model)|unfortunately, i)",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^[\s>*#\d.()\-]*(question|again|answer|evidence)\b[\s\d*]*[:.)][\s*]*(.*)$", re.IGNORECASE)
_BEGINS, _LIST = re.compile(r'\{\s*"'), re.compile(r'\{\s*"\w+"\s*:\s*\[\s*\{')
_LEAD = re.compile(r"^(?:sure|certainly|of course|here(?:'s| is| are))\b[^\n]*:\s*\n", re.IGNORECASE)


class Found(NamedTuple):
    """The questions of a reply as written, and the reason for each part that is none."""

    items: list[dict[str, str]]
    wrong: list[str]


def questions_in(reply: str, evidence: str = "") -> Found:
    """Returns the questions that a reply holds, unchecked: objects with question, answer, evidence, perhaps again.

    `evidence` is that of a question which has none of its own.
    """
    text = _without_thoughts(reply)
    items, wrong = list[dict[str, str]](), list[str]()
    for value in _objects(text, wrong):
        for record in _records(value):
            item = {"evidence": evidence, **_item(record)}
            if all(item.get(name) for name in ("question", "answer", "evidence")):
                items.append(item)
            else:
                wrong.append(INCOMPLETE)
    if not items and not wrong:
        items = list(_labelled(text, evidence))
    if not items and not wrong:
        wrong.append(REFUSED if is_refusal(text) else NO_JSON)
    return Found(items, wrong)


def _spoken(reply: str) -> str:
    """Returns a reply without a model's thoughts (`<think>`) and without the fence of a code block around it."""
    text = _LEAD.sub("", _without_thoughts(reply)).strip()
    fenced = _FENCED.fullmatch(text)
    return fenced[1].strip() if fenced else text


def _without_thoughts(reply: str) -> str:
    return _BEGUN_THOUGHT.sub("", _THOUGHT.sub("", reply)).strip()


def rewrite_in(reply: str) -> str:
    """Returns the text of a rewrite: without thoughts, fence, lines of equals signs, and an opening remark."""
    text = _LEAD.sub("", _spoken(reply))
    text = re.sub(r"^={5,}\s*$", "", text, flags=re.MULTILINE).strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2 else text


def is_refusal(text: str) -> bool:
    """Returns whether a reply begins like one that refuses, in English."""
    return _REFUSAL.match(text.replace("\u2019", "'")) is not None


def _objects(text: str, wrong: list[str]) -> Iterator[Any]:
    """Yields the JSON objects of a text; what begins as one and is none is added to `wrong`, once in a row."""
    decoder, at, is_half = json.JSONDecoder(strict=False), 0, False
    while (start := text.find("{", at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
            if not is_half and _BEGINS.match(text, start) and not _LIST.match(text, start):
                wrong.append(HALF)
                is_half = True
        else:
            is_half = False
            yield value


def _records(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yields an object, or those in the lists that it holds."""
    lists = [inner for inner in value.values() if isinstance(inner, list) and any(isinstance(i, dict) for i in inner)]
    if not lists or any(name in value for name in _NAMES["question"]):
        yield value
        return
    for inner in lists:
        yield from (record for record in inner if isinstance(record, dict))


def _item(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns the fields that are known, as texts on one line, under their names."""
    found = {}
    for name, others in _NAMES.items():
        value = next((record[other] for other in others if other in record), None)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            found[name] = one_line(str(value))
    return found


def _labelled(text: str, evidence: str) -> Iterator[dict[str, str]]:
    """Yields questions that are written in lines "Question: ...", "Answer: ...", "Evidence: ..."."""
    empty = {"evidence": evidence} if evidence else {}
    item = dict(empty)
    for line in text.splitlines():
        found = _LABEL.match(line)
        if found is None:
            continue
        name, value = found[1].lower(), found[2].strip().strip("*").strip()
        if name == "question":
            item = dict(empty)
        item[name] = value
        if all(item.get(key) for key in ("question", "answer", "evidence")):
            yield item
            item = dict(empty)
