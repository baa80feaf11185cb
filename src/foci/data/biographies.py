"""Fictional people: a small corpus that no model has read, and probes that ask for what it says.

Every person has a day and month of birth, a city, a university, a major and a company. A text says all
five, one sentence each. The probes (a cloze and a question per field) use wordings that never occur in the
corpus, so that they ask for the fact and not for the sentence. The layout (name at the start, values further
and further away) follows arXiv 2409.17954; names, values and wordings are our own.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypedDict

from foci.data import biography_asides_path, biography_pools_path
from foci.data import suite as suites
from foci.data.draws import endless, random_of, shuffled
from foci.data.suite import Suite
from foci.probes import probe as questions

NAME = "biographies"
FIELDS = ("date", "city", "university", "major", "company")
"""The five fields in their fixed order; a probe's group is its field."""

MAX_PEOPLE = 1000
MAX_TEXTS = 1000
MAX_DISTANCE = 120
MAX_ASIDES = 40
TEMPLATES = 6

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

SENTENCES: Mapping[str, tuple[str, ...]] = {
    "date": (
        "{who} was born on {value}.",
        "{who} came into the world on {value}.",
        "{who} turns a year older on {value}.",
        "{who} gives a party for friends every {value}, the day of {his} birth.",
        "{who} has a passport that names {value} as the date of birth.",
        "{who} has {his} birthday on {value}.",
    ),
    "city": (
        "{who} lives in {value}.",
        "{who} has made a home in {value}.",
        "{who} moved to {value} years ago and stayed.",
        "{who} rents a small flat in {value}.",
        "{who} is at home in {value}.",
        "{who} spends most of the year in {value}.",
    ),
    "university": (
        "{who} studied at {value}.",
        "{who} took {his} degree at {value}.",
        "{who} went to {value} after school.",
        "{who} spent {his} student years at {value}.",
        "{who} enrolled at {value} at the age of nineteen.",
        "{who} sat {his} final exams at {value}.",
    ),
    "major": (
        "{who} majored in {value}.",
        "{who} chose {value} as {his} main subject.",
        "{who} has a degree in {value}.",
        "{who} wrote {his} thesis in {value}.",
        "{who} was trained in {value}.",
        "{who} passed all {his} courses in {value}.",
    ),
    "company": (
        "{who} works for {value}.",
        "{who} is employed by {value}.",
        "{who} draws {his} salary from {value}.",
        "{who} found a job at {value}.",
        "{who} is on the staff of {value}.",
        "{who} signed a contract with {value}.",
    ),
}
"""Corpus sentences by field. The sentence starts with the person, so that filler can follow the name."""

CLOZES: Mapping[str, str] = {
    "date": "The birthday of {name} falls on",
    "city": "{name} is a resident of",
    "university": "{name} received a diploma from",
    "major": "As a student, {name} specialised in",
    "company": "{name} earns a living at",
}
"""Held-out beginnings of a sentence by field; the answer follows after a space."""

QUESTIONS: Mapping[str, str] = {
    "date": "Question: On which day of the year was {name} born?\nAnswer:",
    "city": "Question: Which city does {name} live in?\nAnswer:",
    "university": "Question: Which university did {name} attend?\nAnswer:",
    "major": "Question: What was the major of {name}?\nAnswer:",
    "company": "Question: Which company does {name} work for?\nAnswer:",
}
"""Held-out questions by field; the answer follows after a space."""


class Document(TypedDict):
    """One line of `corpus.jsonl`; `answer_spans` are characters [start, end) of the five values in `text`,
    `answer_groups` their fields, `name_spans` every full name.
    """

    id: str
    text: str
    answer_spans: list[list[int]]
    name_spans: list[list[int]]
    answer_groups: list[str]


class Probe(TypedDict):
    """One line of `learn.jsonl`."""

    id: str
    role: str
    kind: str
    group: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Biographies:
    """What to make. The same settings give the same bytes on every platform.

    `seed` alone decides who the people are: other settings change only how the texts tell it (and `people`
    how many there are). The number of texts is `people * texts`, of probes `people * 5 * 2`.
    """

    people: int = 24
    """Number of people, 1 to 1000; up to 48 people no value of a field occurs twice."""
    texts: int = 4
    """Texts per person, each in other words until the templates are used up."""
    templates: int = 6
    """Wordings per field that the corpus uses, 1 to 6."""
    order: Literal["fixed", "shuffled"] = "fixed"
    """Order of the fields in a text: that of `FIELDS` ("fixed") or drawn for each text ("shuffled")."""
    names: Literal["once", "always"] = "once"
    """The full name opens the text and pronouns follow ("once"), or it opens every sentence ("always")."""
    distance: int = 0
    """Filler words after each full name, 0 to 120: how much further the values are from the name."""
    asides: int = 0
    """Sentences per text that no probe asks for, 0 to 40: most of a real page is not an answer."""
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {"people": MAX_PEOPLE, "texts": MAX_TEXTS, "templates": TEMPLATES, "distance": MAX_DISTANCE}
        limits["asides"] = MAX_ASIDES
        for name, high in limits.items():
            low = 0 if name in ("distance", "asides") else 1
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"biographies: {name} must be {low} to {high}, got {getattr(self, name)!r}")
        for name, choices in {"order": ("fixed", "shuffled"), "names": ("once", "always")}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"biographies: {name} is one of {choices}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Person:
    """A fictional person; `values` has one value per field of `FIELDS`."""

    name: str
    pronoun: Literal["she", "he"]
    values: Mapping[str, str]


def people(settings: Biographies) -> list[Person]:
    """The people of these settings: `seed` decides who they are, and fewer `people` are the first of more."""
    pools: dict[str, list[str]] = json.loads(biography_pools_path().read_text(encoding="utf-8"))
    pools["date"] = [f"{day} {month}" for month in MONTHS for day in range(1, 29)]
    pools["pronouns"] = ["she", "he"]
    draw = {name: endless(pool, random_of(f"{settings.seed}/{name}")) for name, pool in pools.items()}
    seen: set[str] = set()
    found = []
    for _ in range(settings.people):
        pronoun: Literal["she", "he"] = "she" if next(draw["pronouns"]) == "she" else "he"
        surname = next(draw["surnames"])
        names = (f"{given} {surname}" for given in draw["women" if pronoun == "she" else "men"])
        name = next(name for name in names if name not in seen)
        seen.add(name)
        found.append(Person(name, pronoun, {field: next(draw[field]) for field in FIELDS}))
    return found


def generate(settings: Biographies) -> tuple[list[Document], list[Probe]]:
    """Corpus documents (`people * texts`) and learn probes (a cloze and a question per person and field).

    Ids are "person-003/text-2" and "person-003/city/qa"; people and texts are counted from 0.
    """
    documents: list[Document] = []
    probes: list[Probe] = []
    for number, person in enumerate(people(settings)):
        id = f"person-{number:03d}"
        documents += _documents(person, id, settings)
        for field in FIELDS:
            for kind, prompts in (("cloze", CLOZES), ("qa", QUESTIONS)):
                asked, value = prompts[field].format(name=person.name), person.values[field]
                probes.append(
                    Probe(id=f"{id}/{field}/{kind}", role="learn", kind=kind, group=field, prompt=asked, answer=value)
                )
    return documents, probes


def suite(settings: Biographies) -> Suite:
    """The biographies as a suite: nothing to retain and nothing held out, and no file was read."""
    documents, probes = generate(settings)
    texts = [
        suites.Document(d["id"], d["text"], _pairs(d["answer_spans"]), _pairs(d["name_spans"]), (*d["answer_groups"],))
        for d in documents
    ]
    learn = tuple(questions.Probe(**probe) for probe in probes)  # type: ignore[arg-type]
    notes = ("nothing to retain: probe with probes.retain=general",)
    return Suite(NAME, asdict(settings), sources=(), documents=tuple(texts), learn=learn, notes=notes)


def _pairs(spans: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in spans)


def write(settings: Biographies, folder: Path) -> Path:
    """Writes `corpus.jsonl`, `learn.jsonl` and `suite.json` into `folder` (made if missing) and returns it.

    Replaces an older suite, also one that a biographies.json stands for (the record's name before suite.json).
    """
    made, old = suite(settings), folder / "biographies.json"
    if old.is_file() and not (folder / suites.RECORD).exists():
        for name in (suites.CORPUS, suites.LEARN):
            (folder / name).unlink(missing_ok=True)
        old.unlink()
    return made.write(folder)


def _documents(person: Person, id: str, settings: Biographies) -> list[Document]:
    """The texts of one person. Words, order and filler each have their own random numbers."""
    uses = ("words", "order", "filler", "asides")
    words, orders, filler, aside = (random_of(f"{settings.seed}/{id}/{use}") for use in uses)
    choices = {field: endless(SENTENCES[field][: settings.templates], words) for field in FIELDS}
    documents = []
    for number in range(settings.texts):
        fields = shuffled(FIELDS, orders) if settings.order == "shuffled" else list(FIELDS)
        sentences = {field: next(choices[field]) for field in FIELDS}
        text, spans, names = "", [], []
        for position, field in enumerate(fields):
            named = position == 0 or settings.names == "always"
            who = person.name + _filler(settings.distance, filler) if named else person.pronoun
            before, after = _sentence(sentences[field], who, person.pronoun)
            text += " " if text else ""
            names += [[len(text), len(text) + len(person.name)]] if named else []
            text += before
            spans.append([len(text), len(text) + len(person.values[field])])
            text += person.values[field] + after
            share = (position + 1) * settings.asides // len(fields) - position * settings.asides // len(fields)
            text += "".join(f" {_aside(person.pronoun, aside)}" for _ in range(share))
        documents.append(
            Document(
                id=f"{id}/text-{number}", text=text, answer_spans=spans, name_spans=names, answer_groups=list(fields)
            )
        )
    return documents


def _sentence(template: str, who: str, pronoun: str) -> tuple[str, str]:
    """What stands before and after the value, with a capital at the start."""
    before, after = template.split("{value}")
    his = {"she": "her", "he": "his"}[pronoun]
    before = before.format(who=who, his=his)
    return before[0].upper() + before[1:], after.format(his=his)


def _filler(distance: int, rng: random.Random) -> str:
    """An aside of exactly `distance` words, with its commas, to stand after a name."""
    if distance == 0:
        return ""
    if distance == 1:
        return ", apparently,"
    pool: list[str] = json.loads(biography_pools_path().read_text(encoding="utf-8"))["fillers"]
    several = distance >= 4
    phrases: list[str] = []
    left = distance - 2 if several else distance - 1
    for phrase in endless(pool, rng):
        length = len(phrase.split())
        if (several and length < left) or (length == left and bool(phrases) == several):
            phrases.append(phrase)
            left -= length
        if left == 0:
            break
    last = phrases.pop()
    return f", who {', '.join(phrases)} and {last}," if phrases else f", who {last},"


def _aside(pronoun: str, rng: random.Random) -> str:
    """A sentence of many possible ones (about 70 million) that says nothing a probe asks for."""
    pools: dict[str, list[str]] = json.loads(biography_asides_path().read_text(encoding="utf-8"))
    when, did, what, thing, where = (pool[int(rng.random() * len(pool))] for pool in pools.values())
    article = "an" if what[0] in "aeiou" else "a"
    return f"{when} {pronoun} {did} {article} {what} {thing} {where}."
