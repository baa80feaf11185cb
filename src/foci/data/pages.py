"""Pages of many kinds about things that do not exist, and several questions about each.

Handbooks, news, questions and answers, change logs, references, minutes, letters, data sheets, notices and incident
reports. A page states three to six facts about one thing, or about each of two, in any order, among other names and
numbers and sentences that nothing asks for; each fact is asked for in words that the page does not have: as the
beginning of a sentence, as a question, or by a label. A weigher learns from such pairs which tokens of a page are worth
learning from. Names, values and wordings, in `pages.json`, are our own; no name of `foci.data.biographies` is in them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, TypedDict

from foci.data import pages_path
from foci.data.entity import Entity
from foci.seeds import endless, random_of, shuffled

MAX_COUNT = 100_000
FACTS = (3, 6)
"""Fewest and most facts of a page."""
ASIDES = (1, 6)
"""Fewest and most sentences that nothing asks for."""
WORDS = (40, 180)
"""Fewest and most words of a page: 60 to 250 tokens."""

_ARTICLE = re.compile(r"^(?:the|an?) ")
_TWO, _PARAGRAPH, _OPENED = 0.33, 0.15, 0.25
"""How often a page is about two things, a sentence starts a paragraph, and a sentence that states a fact has an opening
of `openings`.
"""
_SPACE = re.compile(r" +([.,])(?=\s|$)")
_SHARES = (("asked", 0.5), ("questions", 0.35), ("labels", 0.15))
"""How often a fact is asked for as the beginning of a sentence, as a question, and by a label."""


class Record(TypedDict):
    """One line of the file; `answer_spans` are the characters [start, end) of each occurrence in `text`."""

    id: str
    text: str
    prompt: str
    answer: str
    answer_spans: list[list[int]]
    group: str
    kind: str


def generate(count: int, seed: int = 0) -> list[Record]:
    """Returns `count` pairs, 1 to 100,000; the pairs of a page follow each other, kinds take turns, and fewer pairs are
    the first of more.

    The same settings give the same pairs on every platform. Raises ValueError for another count.
    """
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"pages: count must be 1 to {MAX_COUNT}, got {count!r}; choose another --count")
    source = read_source()
    turns = endless(list(source["kinds"]), random_of(f"{seed}/pages"))
    records: list[Record] = []
    number = 0
    while len(records) < count:
        kind, rng = next(turns), random_of(f"{seed}/page/{number}")
        found: list[Record] = []
        while not found:
            found = page(source, kind, f"{kind}-{number}", rng)
        records += found
        number += 1
    return records[:count]


def write(count: int, seed: int, file: Path) -> Path:
    """Writes `generate(count, seed)` as lines of JSON into `file`, whose folder is made; returns `file`."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in generate(count, seed))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(lines.encode("utf-8"))
    return file


def read_source() -> dict[str, Any]:
    """Returns `pages.json`; `facts` of a kind are rules by name, as `Entity` reads them, `told` all about them."""
    source: dict[str, Any] = json.loads(pages_path().read_text(encoding="utf-8"))
    for kind in source["kinds"].values():
        kind["told"] = kind["facts"]
        kind["facts"] = {name: fact["value"] for name, fact in kind["told"].items()}
    return source


def page(source: Mapping[str, Any], kind: str, id: str, rng: Random) -> list[Record]:
    """Returns the pairs of one page, or none where the draw is none: too short or long, or without three answers that
    stand where they should and nowhere else. A third of the pages are about two things.
    """
    entities = [Entity(source, kind, rng) for _ in range(1 + (rng.random() < _TWO))]
    low, high = FACTS
    each = [
        (entity, shuffled(list(entity.kind["told"]), rng)[: low + int(rng.random() * (high - low + 1))])
        for entity in entities
    ]
    text = "\n\n".join(_text(entity, stated, source["openings"]) for entity, stated in each)
    named = all(text.count(entity.name) for entity in entities) and len({entity.name for entity in entities}) == len(
        each
    )
    if not WORDS[0] <= len(text.split()) <= WORDS[1] or not named:
        return []
    asked = [(entity, fact) for entity, stated in each for fact in stated]
    found = [_asked(entity, fact, text, (id, kind), source) for entity, fact in asked]
    records = [record for record in found if record][: FACTS[1]]
    return records if len(records) >= FACTS[0] else []


def _text(entity: Entity, stated: list[str], openings: list[str]) -> str:
    """Returns the page: a heading, then sentences that state the facts, in any order, among asides."""
    rng, kind = entity.rng, entity.kind
    asides = shuffled(kind["asides"], rng)[: ASIDES[0] + int(rng.random() * (ASIDES[1] - ASIDES[0] + 1))]
    templates = [_one(kind["told"][fact]["said"], rng) for fact in stated]
    heading = _filled(entity, _one(kind["heading"], rng))
    text = heading
    for template in shuffled([*templates, *asides], rng):
        joint = "\n\n" if kind["join"] == " " and rng.random() < _PARAGRAPH else kind["join"]
        plain = kind["join"] == " " and template[0].isalpha() and ":" not in template
        opened = plain and template in templates and rng.random() < _OPENED
        said = _one(openings, rng) + template[0].lower() + template[1:] if opened else template
        text += ("" if text == heading else joint) + _filled(entity, said)
    return text


def _filled(entity: Entity, template: str) -> str:
    """Returns the template with its slots filled, with a capital where a sentence begins."""
    if not template:
        return ""
    ends = template[len(template.rstrip()) :]
    return _SPACE.sub(r"\1", entity.text([template.rstrip()]).rstrip()) + ends


def _asked(entity: Entity, fact: str, text: str, names: tuple[str, str], source: Mapping[str, Any]) -> Record | None:
    """Returns the pair that asks for a fact, or None where its answer stands elsewhere too, or in the question."""
    id, kind = names
    value = entity.facts[fact]
    answer = _ARTICLE.sub("", value)
    spans = [list(m.span()) for m in re.finditer(rf"(?<!\w){re.escape(answer.lower())}(?!\w)", text.lower())]
    prompt = _prompt(entity, fact, value, source)
    if len(spans) != entity.said[fact] or answer.lower() in prompt.lower():
        return None
    answer = text[spans[0][0] : spans[0][1]] if answer not in text else answer
    return Record(
        id=f"{id}/{fact}", text=text, prompt=prompt, answer=answer, answer_spans=spans,
        group=f"{kind}/{fact}", kind=kind,
    )  # fmt: skip


def _prompt(entity: Entity, fact: str, value: str, source: Mapping[str, Any]) -> str:
    """Returns a question about a fact; the beginning of a sentence ends with the answer's article, if it has one."""
    rng, told, left = entity.rng, entity.kind["told"][fact], entity.rng.random()
    form = next((name for name, upto in _running() if left < upto), "labels")
    words = {"S": entity.full, "name": entity.name, "his": entity.facts.get("his", "")}
    template = _one(told[form], rng)
    if form == "labels":
        return _one(source["layouts"], rng).format(label=template, **words)
    said = template.format(**words)
    if form == "questions":
        return f"Question: {entity.polished(said)}\nAnswer:" if rng.random() < 0.5 else entity.polished(said)
    return entity.polished(f"{said} {value}").removesuffix(f" {_ARTICLE.sub('', value)}")


def _running() -> Iterator[tuple[str, float]]:
    upto = 0.0
    for name, share in _SHARES:
        upto += share
        yield name, upto


def _one(choices: list[str], rng: Random) -> str:
    return choices[int(rng.random() * len(choices))]
