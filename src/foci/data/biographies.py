"""Fictional people: a small corpus that no model has read, and probes that ask for what it says.

Every person has a day and month of birth, a city, a university, a major and a company. A text says all
five, one sentence each. The probes (a cloze and a question per field) use wordings that never occur in the
texts, so that they ask for the fact and not for the sentence. With `asked` they stand in the corpus too, for a
model that is to be made from nothing; `known` are the people of whom it has read then. The layout (name at the
start, values further and further away) follows arXiv 2409.17954; names, values and wordings are our own.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypedDict

from foci.data import biography_asides_path, biography_pools_path
from foci.data import suite as suites
from foci.data.biography_wordings import CLOZES, FIELDS, QUESTIONS, SENTENCES
from foci.data.suite import Suite
from foci.probes import probe as questions
from foci.seeds import endless, random_of, shuffled

NAME = "biographies"
MAX_PEOPLE = 1000
MAX_TEXTS = 1000
MAX_DISTANCE = 120
MAX_ASIDES = 40
TEMPLATES = 6

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


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
    """Settings of the corpus. The same settings give the same bytes on every platform.

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
    asked: bool = False
    """The corpus holds the probes too, each with its answer: to pretrain a model that will be asked about others."""
    known: int | None = None
    """The seed of people whom the model knows: none of them (up to 1000) is made, and the probes of the first
    `people` of them are to be retained.
    """

    def __post_init__(self) -> None:
        if self.known is not None and self.known == self.seed:
            raise ValueError(f"biographies: known={self.known} are the people of this seed; give it another seed")
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
    known = [] if settings.known is None else people(Biographies(people=MAX_PEOPLE, seed=settings.known))
    pools: dict[str, list[str]] = json.loads(biography_pools_path().read_text(encoding="utf-8"))
    pools["date"] = [f"{day} {month}" for month in MONTHS for day in range(1, 29)]
    pools["pronouns"] = ["she", "he"]
    draw = {name: endless(pool, random_of(f"{settings.seed}/{name}")) for name, pool in pools.items()}
    seen = {person.name for person in known}
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
        probes += _probes(person, id, "learn")
    return documents, probes


def _probes(person: Person, id: str, role: questions.Role) -> list[Probe]:
    asked = ((f, kind, prompts) for f in FIELDS for kind, prompts in (("cloze", CLOZES), ("qa", QUESTIONS)))
    return [
        Probe(
            id=f"{id}/{field}/{kind}", role=role, kind=kind, group=field,
            prompt=prompts[field].format(name=person.name), answer=person.values[field],
        )
        for field, kind, prompts in asked
    ]  # fmt: skip


def suite(settings: Biographies) -> Suite:
    """The biographies as a suite. Nothing is held out and no file was read; to retain are the probes of `known`."""
    documents, probes = generate(settings)
    texts = [
        suites.Document(d["id"], d["text"], _pairs(d["answer_spans"]), _pairs(d["name_spans"]), (*d["answer_groups"],))
        for d in documents
    ]
    texts += [_as_document(probe) for probe in probes] if settings.asked else []
    notes = (
        ("the corpus asks the probes and answers them: to pretrain on, not to learn from",) if settings.asked else ()
    )
    retain: list[Probe] = []
    if settings.known is not None:
        known = people(Biographies(people=settings.people, seed=settings.known))
        retain = [probe for n, person in enumerate(known) for probe in _probes(person, f"known-{n:03d}", "retain")]
    else:
        notes = (*notes, "nothing to retain: probe with probes.retain=general, or give --known")
    learn, kept = (tuple(questions.Probe(**p) for p in some) for some in (probes, retain))  # type: ignore[arg-type]
    return Suite(NAME, asdict(settings), sources=(), documents=tuple(texts), learn=learn, retain=kept, notes=notes)


def _as_document(probe: Probe) -> suites.Document:
    """A probe with its answer as a text of its own."""
    text, asked = f"{probe['prompt']} {probe['answer']}.", len(probe["prompt"]) + 1
    return suites.Document(probe["id"], text, ((asked, len(text) - 1),), groups=(probe["group"],))


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
    """Returns the text before and after the value, with a capital at the start."""
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
