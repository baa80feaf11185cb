"""Short encyclopedic documents about things that do not exist, and what is asked about them later.

A pair is a document of one to four sentences and a task that asks for one of its facts in a wording that no document
has (with `every`, pairs ask for all facts, one after another); half of the tasks are sentences, half schematic. A
weigher learns from such pairs which tokens of a document are worth learning from
(`foci.methods.train_attention.pairs`). Names, values and wordings, in `encyclopedia.json`, are our own;
`foci.data.entity` says how a template is read.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, TypedDict

from foci.data import encyclopedia_path
from foci.data.entity import Entity
from foci.seeds import endless, random_of, shuffled

MAX_COUNT = 100_000
SENTENCES = 4
"""Most sentences of a document."""
WORDS = (25, 120)
"""Fewest and most words of a document."""

_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"^(?:the|an?) ")
_OPENED = 0.75


class Record(TypedDict):
    """One line of the file; `answer_spans` are the characters [start, end) of each occurrence in `text`."""

    id: str
    text: str
    prompt: str
    answer: str
    answer_spans: list[list[int]]
    group: str


def generate(count: int, seed: int = 0, every: bool = False) -> list[Record]:
    """`count` pairs, 1 to 100,000; relations take turns, and fewer pairs are the first of more.

    With `every`, the pair of a document is followed by those that ask for the other facts that it states. The same
    settings give the same pairs on every platform. Raises ValueError for another count.
    """
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"pairs: count must be 1 to {MAX_COUNT}, got {count!r}; choose another --count")
    source = json.loads(encyclopedia_path().read_text(encoding="utf-8"))
    turns = endless(list(source["relations"]), random_of(f"{seed}/relations"))
    asked = {name: endless(_asked(source, name), random_of(f"{seed}/{name}")) for name in source["relations"]}
    tasks = {name: _tasks(source, name, random_of(f"{seed}/{name}/tasks")) for name in source["relations"]}
    seen: set[tuple[str, str]] = set()
    records: list[Record] = []
    number = 0
    while len(records) < count:
        relation, rng = next(turns), random_of(f"{seed}/{number}")
        (kind, template), task = next(asked[relation]), next(tasks[relation])
        record = None
        while record is None or (record["text"], record["prompt"]) in seen:
            entity = Entity(source, kind, rng)
            record = _record(f"{relation}/{number}", entity, template, task)
        seen.add((record["text"], record["prompt"]))
        records.append(record)
        others = [name for name in source["relations"] if every and name in entity.facts and name != relation]
        further = [_pair(f"{name}/{number}", entity, record["text"], next(tasks[name])) for name in others]
        records += [pair for pair in further if pair is not None]
        number += 1
    return records[:count]


def write(count: int, seed: int, file: Path, every: bool = False) -> Path:
    """Writes `generate(count, seed, every)` as lines of JSON into `file`, whose folder is made; returns `file`."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in generate(count, seed, every))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(lines.encode("utf-8"))
    return file


def _asked(source: Mapping[str, Any], relation: str) -> list[tuple[str, str]]:
    """Every kind and sentence template that states the relation."""
    return [
        (name, template)
        for name, kind in source["kinds"].items()
        if relation in kind["facts"]
        for template in (*kind["first"], *kind["later"])
        if f"{{{relation}}}" in template
    ]


def _tasks(source: Mapping[str, Any], relation: str, rng: Random) -> Iterator[str]:
    """Sentences (with `{S}` for the entity) and schemas (with `{name}`) by turns."""
    given = source["relations"][relation]
    plain, labels, layouts = (endless(pool, rng) for pool in (given["plain"], given["labels"], source["layouts"]))
    if rng.random() < 0.5:
        yield next(plain)
    while True:
        yield next(layouts).replace("{label}", next(labels))
        yield next(plain)


def _templates(kind: Mapping[str, Any], asked: str, rng: Random) -> list[str]:
    """The asked sentence among others that state other facts; an opening sentence comes first."""
    first, later, facts = (kind[name] for name in ("first", "later", "facts"))
    count = 1 + int(rng.random() * SENTENCES)
    openings = shuffled(first, rng) if asked not in first and rng.random() < _OPENED else []
    chosen = [asked]
    for template in [*openings, *shuffled(later, rng)]:
        stated = {slot for other in chosen for slot in _SLOT.findall(other) if slot in facts}
        second = template in first and chosen[-1] in first
        if len(chosen) < count and not second and not stated & set(_SLOT.findall(template)):
            chosen.append(template)
    return sorted(shuffled(chosen, rng), key=lambda template: template not in first)


def _record(id: str, entity: Entity, asked: str, task: str) -> Record | None:
    """A pair, or None where the draw is none: too short or long, or the answer stands where it should not."""
    templates = _templates(entity.kind, asked, entity.rng)
    text = entity.text(templates)
    good = (
        WORDS[0] <= len(text.split()) <= WORDS[1]
        and not {"S", "O", "P"}.isdisjoint(_SLOT.findall(templates[0]))
        and entity.name in text
    )
    return _pair(id, entity, text, task) if good else None


def _pair(id: str, entity: Entity, text: str, task: str) -> Record | None:
    """A document's pair for the relation that its id begins with, or None where the answer stands elsewhere too."""
    relation = id.split("/", maxsplit=1)[0]
    value = entity.facts[relation]
    answer = _ARTICLE.sub("", value)
    spans = [list(found.span()) for found in re.finditer(rf"(?<!\w){re.escape(answer.lower())}(?!\w)", text.lower())]
    prompt = task.format(name=entity.name, S=entity.full)
    if "{S}" in task:
        prompt = entity.polished(f"{prompt} {value}").removesuffix(f" {answer}")
    good = (
        len(spans) == entity.said[relation]
        and {text[start:end] for start, end in spans} == {answer}
        and answer.lower() not in prompt.lower()
    )
    return Record(id=id, text=text, prompt=prompt, answer=answer, answer_spans=spans, group=relation) if good else None
