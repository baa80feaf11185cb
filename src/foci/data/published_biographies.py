"""The published biographies (contrasting_attention, arXiv 2409.17954): a CSV of texts with inline tags.

`<name>`, `<date>`, `<city>`, `<university>`, `<major>` and `<company>` mark what they enclose. The tags are taken
out, the five values become answer spans, and each is asked as a question and as a cloze. The texts are kept as
they are, with the typing error "Shee" of the published file.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from foci.data import sources
from foci.data.biography_wordings import FIELDS
from foci.data.suite import Document, LeftOut, Suite, check_splits, merged, parted
from foci.probes.probe import Probe, Role

NAME = "published-biographies"
PROMPTS = "prompts.csv"

CLOZES: Mapping[str, str] = {
    "date": "The date on which {name} was born is",
    "city": "The city of the early years of {name} is",
    "university": "The place where {name} was a student is",
    "major": "The field that {name} learned is",
    "company": "The employer of {name} is",
}
"""Beginnings of a sentence by field, in none of the published wordings; the answer follows after a space."""

QUESTIONS: Mapping[str, str] = {
    "date": "Question: When was {name} born?\nAnswer:",
    "city": "Question: In which city did {name} spend the early years?\nAnswer:",
    "university": "Question: Where was {name} a student?\nAnswer:",
    "major": "Question: Which field did {name} learn?\nAnswer:",
    "company": "Question: Who was the employer of {name}?\nAnswer:",
}
"""Questions by field, where the published `prompts.csv` is not beside the texts."""

_TAG = re.compile(r"<(/?)(\w+)>")


@dataclass(frozen=True)
class PublishedBiographies:
    """Settings. `limit`: most probes to learn, and most to retain (None = all); `held_out`: so many more of both."""

    held_out: int = 50
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_splits(NAME, self)


@dataclass(frozen=True)
class Biography:
    """A text without tags, and by tag the characters [start, end) that it marked."""

    text: str
    spans: Mapping[str, tuple[int, int]]

    def value(self, tag: str) -> str:
        """Returns the text inside the tag."""
        start, end = self.spans[tag]
        return self.text[start:end]


def convert(path: Path, settings: PublishedBiographies, known: Path | None = None) -> Suite:
    """Reads a CSV of texts (or `biography_synthetic.csv` in the folder `path`) and `prompts.csv` beside it.

    `known`: a second CSV, of people the model knows already; its probes are to be retained, its texts not read.
    """
    file = sources.located(NAME, Path(path))
    left = LeftOut()
    files = [file]
    questions, notes = QUESTIONS, ["no prompts.csv beside the texts: questions are foci's own wording"]
    if (file.parent / PROMPTS).is_file():
        files.append(file.parent / PROMPTS)
        questions, notes = read_prompts(files[1]), []
    people = _people(file, left)
    learn, held_learn = parted(_probes(people, file.stem, "learn", questions), settings, left, _fact)
    retain: list[Probe] = []
    held_retain: list[Probe] = []
    if known is not None:
        files.append(sources.located(NAME, Path(known)))
        old = _probes(_people(files[-1], left), files[-1].stem, "retain", questions)
        retain, held_retain = parted(old, settings, left, _fact)
    else:
        notes.append("nothing to retain: give a CSV of people the model knows with --known, or probe with 'general'")
    if typos := sum(bool(re.search(r"\bShee\b", person.text)) for _, person in people):
        notes.append(f"{typos} texts have the typing error 'Shee' of the published file; it is kept")
    documents = merged(_document(f"{file.stem}:{number}", person) for number, person in people)
    return Suite(
        NAME,
        asdict(settings),
        tuple(sources.used(NAME, one) for one in files),
        documents=documents,
        learn=tuple(learn),
        retain=tuple(retain),
        held_out=(*held_learn, *held_retain),
        left_out=left,
        notes=tuple(notes),
    )


def untagged(tagged: str) -> Biography:
    """A text without its tags. Raises ValueError for a tag that is not closed, or comes twice.

    >>> untagged("<name>Ada</name> lived in <city>Rome</city>.").value("city")
    'Rome'
    """
    text, last = "", 0
    opened: tuple[str, int] | None = None
    spans: dict[str, tuple[int, int]] = {}
    for tag in _TAG.finditer(tagged):
        text += tagged[last : tag.start()]
        last = tag.end()
        closing, name = bool(tag[1]), tag[2]
        if closing != (opened is not None) or (opened and opened[0] != name) or (not closing and name in spans):
            raise ValueError(f"expected <name>...</name> in pairs, each once, got {tag[0]} in {tagged[:80]!r}")
        if opened:
            spans[name] = (opened[1], len(text))
        opened = None if closing else (name, len(text))
    if opened:
        raise ValueError(f"expected </{opened[0]}> after <{opened[0]}>, got none in {tagged[:80]!r}")
    return Biography(text + tagged[last:], spans)


def read_prompts(file: Path) -> dict[str, str]:
    """The question of each field, with {name}."""
    found = {row["field"]: row["prompt"] for _, row in _rows(file, ("field", "prompt"))}
    for tag in FIELDS:
        if "{name}" not in found.get(tag, ""):
            raise ValueError(f"{file}: expected a prompt with {{name}} for {tag!r}, got {found.get(tag)!r}")
    return found


def _document(id: str, person: Biography) -> Document:
    fields = sorted(FIELDS, key=lambda field: person.spans[field])
    spans = tuple(person.spans[field] for field in fields)
    return Document(id, person.text, spans, (person.spans["name"],), tuple(fields))


def _people(file: Path, left_out: LeftOut) -> list[tuple[int, Biography]]:
    """(record from 1, biography) of those that have all tags and a name of their own."""
    people: dict[str, tuple[int, Biography]] = {}
    for number, row in _rows(file, ("text",)):
        try:
            made = untagged(row["text"])
        except ValueError as error:
            raise ValueError(f"{file}, record {number}: {error}") from None
        missing = [tag for tag in ("name", *FIELDS) if tag not in made.spans or not made.value(tag).strip()]
        if missing:
            left_out.add("biographies", f"no <{missing[0]}>")
        elif made.value("name") in people:
            left_out.add("biographies", "an earlier one is of the same name")
        else:
            people[made.value("name")] = (number, made)
    return list(people.values())


def _fact(probe: Probe) -> str:
    """The id without its kind: both questions about a fact are on the same side."""
    return probe.id.rpartition("/")[0]


def _probes(people: list[tuple[int, Biography]], stem: str, role: Role, questions: Mapping[str, str]) -> list[Probe]:
    return [
        Probe(
            f"{stem}:{number}/{tag}/{kind}",
            role,
            "qa" if kind == "qa" else "cloze",
            prompts[tag].replace("{name}", person.value("name")),
            person.value(tag),
            group=tag,
        )
        for number, person in people
        for tag in FIELDS
        for kind, prompts in (("cloze", CLOZES), ("qa", questions))
    ]


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(record from 1, record) of a CSV that has these columns."""
    reader = csv.DictReader(io.StringIO(sources.read_text(NAME, file), newline=""))
    for number, row in enumerate(reader, start=1):
        if any(not isinstance(row.get(column), str) for column in columns):
            names = ", ".join(reader.fieldnames or ())
            raise ValueError(f"{file}, record {number}: expected the columns {', '.join(columns)}, got {names}")
        yield number, row
