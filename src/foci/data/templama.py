"""TempLAMA (Dhingra et al., arXiv 2106.15110): facts by year, as sentences with a gap `_X_`.

The corpus is the sentences of one year. To learn: facts whose answers differ from the year before; to retain:
facts whose answers do not. Only relations whose sentence ends in the answer can be asked of a causal model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from foci.data import sources
from foci.data.suite import Document, LeftOut, Suite, check_splits, merged, parted
from foci.probes.probe import Probe, Role

NAME = "templama"
GAP = "_X_"
RELATIONS = ("P54", "P39", "P108", "P102", "P69", "P127")
"""Relations whose sentences end in the object."""

_KEYS = {"query": str, "answer": list, "date": str, "id": str, "relation": str}


@dataclass(frozen=True)
class TempLama:
    """What to make of the file.

    `corpus`: sentences of all facts of the year ("all", as the table of suites has it) or of the changed ones
    only ("changed"), so that the facts to retain are not read again. `new_only`: a changed fact is a probe only
    where the year has an answer that the year before had not (else one of several answers has ended).
    """

    year: int = 2020
    corpus: Literal["all", "changed"] = "all"
    new_only: bool = False
    held_out: int = 20
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.corpus not in ("all", "changed"):
            raise ValueError(f"templama: corpus must be all or changed, got {self.corpus!r}")
        check_splits(NAME, self)


@dataclass(frozen=True)
class Fact:
    """A fact of one year: its sentence with a gap and its answers in the file's order; `before`: last year's."""

    id: str
    relation: str
    query: str
    answers: tuple[str, ...]
    before: frozenset[str] | None = None

    @property
    def changed(self) -> bool | None:
        """Whether the set of answers differs from the year before; None where that year has no record."""
        return None if self.before is None else set(self.answers) != self.before

    @property
    def new(self) -> tuple[str, ...]:
        """Answers that the year before had not."""
        return tuple(answer for answer in self.answers if answer not in (self.before or ()))

    def probe(self) -> Probe:
        """To learn where it changed (a new answer if there is one), else to retain; other answers are aliases."""
        role: Role = "learn" if self.changed else "retain"
        first = (self.new if self.changed and self.new else self.answers)[0]
        prompt, _, suffix = self.query.partition(GAP)
        others = tuple(answer for answer in self.answers if answer != first)
        return Probe(self.id, role, "cloze", prompt.rstrip(" "), first, suffix, self.relation, others)

    def documents(self) -> list[Document]:
        """One sentence for each answer; its span is the answer."""
        start = self.query.index(GAP)
        return [
            Document(f"{self.id}/{number}", self.query.replace(GAP, answer, 1), ((start, start + len(answer)),))
            for number, answer in enumerate(self.answers)
        ]


def convert(path: Path, settings: TempLama) -> Suite:
    """Reads the published file (or `train.jsonl` in the folder `path`) and makes the suite of one year."""
    file = sources.located(NAME, Path(path))
    left = LeftOut()
    every = read_facts(file, settings.year)
    counts = _counts(every)
    known = [fact for fact in every if _usable(fact, settings, left)]
    changed = [fact for fact in known if fact.changed]
    ended = [fact for fact in changed if not fact.new]
    asked = [fact for fact in changed if fact.new or not settings.new_only]
    left.add("changed facts", "no new answer (new_only): one of several has ended", len(changed) - len(asked))
    unchanged = [fact for fact in known if not fact.changed]
    learn, held_learn = parted([fact.probe() for fact in asked], settings, left)
    retain, held_retain = parted([fact.probe() for fact in unchanged], settings, left)
    read = asked if settings.corpus == "changed" else known
    several = sum(len(fact.answers) > 1 for fact in (*asked, *unchanged))
    notes = [f"{several} probes have several right answers: one is asked, the others are aliases"] if several else []
    if ended and not settings.new_only:
        notes.append(f"{len(ended)} of {len(changed)} changed facts have no new answer: one of several has ended")
    if settings.corpus == "all":
        notes.append("the corpus repeats the facts to retain (corpus: changed leaves them out)")
    return Suite(
        NAME,
        asdict(settings),
        (sources.used(NAME, file),),
        documents=merged(document for fact in read for document in fact.documents()),
        learn=tuple(learn),
        retain=tuple(retain),
        held_out=(*held_learn, *held_retain),
        left_out=left,
        notes=tuple(notes),
        measured=counts,
    )


def read_facts(file: Path, year: int) -> list[Fact]:
    """All facts of a year, with the answers of the year before. Raises ValueError for a year that is not there."""
    facts: dict[int, dict[str, Fact]] = {}
    for number, record in sources.read_records(NAME, file, _KEYS):
        answers = _answers(record, f"{file}:{number}")
        if not record["date"].isdigit():
            raise ValueError(f"{file}:{number}: expected a year as 'date', got {record['date']!r}")
        key = record["id"].rsplit("_", 1)[0]
        fact = Fact(record["id"], record["relation"], record["query"], answers)
        facts.setdefault(int(record["date"]), {})[key] = fact
    if year not in facts:
        raise ValueError(f"templama: {file} has no facts of {year}; its years are {', '.join(map(str, sorted(facts)))}")
    last = facts.get(year - 1, {})
    return [
        Fact(f.id, f.relation, f.query, f.answers, frozenset(last[key].answers) if key in last else None)
        for key, f in facts[year].items()
    ]


def _answers(record: Mapping[str, Any], place: str) -> tuple[str, ...]:
    names: list[Any] = [answer.get("name") if isinstance(answer, dict) else None for answer in record["answer"]]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{place}: expected 'answer' as a list of objects with a name, got {record['answer']!r}"[:300])
    return tuple(dict.fromkeys(name.strip() for name in names))


def _usable(fact: Fact, settings: TempLama, left_out: LeftOut) -> bool:
    """Whether a causal model can be asked the fact; if not, why is counted."""
    start, what = fact.query.find(GAP), f"facts of {settings.year}"
    why = None
    if fact.relation not in RELATIONS:
        why = f"relation {fact.relation}: its sentence does not end in the object"
    elif start < 0 or not fact.query[:start].strip() or fact.query[start + len(GAP) :].strip(" ."):
        why = f"its sentence does not end in {GAP}"
    elif fact.before is None:
        why = f"no record of {settings.year - 1} to compare with"
    if why:
        left_out.add(what, why)
    return why is None


def _counts(facts: Sequence[Fact]) -> dict[str, dict[str, int]]:
    """Facts with a record of the year before, and those that changed: of all relations, and of the six asked."""
    known = [fact for fact in facts if fact.changed is not None]
    final = [fact for fact in known if fact.relation in RELATIONS]
    return {
        name: {"facts": len(some), "changed": sum(bool(fact.changed) for fact in some)}
        for name, some in {"all_relations": known, "object_final": final}.items()
    }
