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
from foci.seeds import drawn

NAME = "templama"
GAP = "_X_"
RELATIONS = ("P54", "P39", "P108", "P102", "P69", "P127")
"""Relations whose sentences end in the object."""

_KEYS = {"query": str, "answer": list, "date": str, "id": str, "relation": str}


@dataclass(frozen=True)
class TempLama:
    """Settings of the suite.

    `corpus`: sentences of all facts of the year ("all", as the table of suites has it) or of the changed ones
    only ("changed"), so that the facts to retain are not read again. `new_only`: a changed fact is a probe only
    where the year has an answer that the year before had not (else one of several answers has ended). `trace`: facts to
    trace through a model, which brought a new answer in an earlier year and are not asked in this one, at most so many.
    """

    year: int = 2020
    corpus: Literal["all", "changed"] = "all"
    new_only: bool = False
    held_out: int = 20
    limit: int | None = None
    seed: int = 0
    trace: int = 0

    def __post_init__(self) -> None:
        if self.trace < 0:
            raise ValueError(f"templama: trace must be at least 0, got {self.trace}")
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
    years = read_years(file)
    every = facts_of(years, settings.year, file)
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
        trace=tuple(_traced(years, every, settings, file)),
        left_out=left,
        notes=tuple(notes),
        measured=counts,
    )


Years = dict[int, dict[str, Fact]]
"""The facts of every year, by an id without the year."""


def read_years(file: Path) -> Years:
    """All facts of the file, without the answers of the year before. Raises ValueError with the line of a bad one."""
    years: Years = {}
    for number, record in sources.read_records(NAME, file, _KEYS):
        answers = _answers(record, f"{file}:{number}")
        if not record["date"].isdigit():
            raise ValueError(f"{file}:{number}: expected a year as 'date', got {record['date']!r}")
        fact = Fact(record["id"], record["relation"], record["query"], answers)
        years.setdefault(int(record["date"]), {})[_key(fact)] = fact
    return years


def facts_of(years: Years, year: int, file: Path) -> list[Fact]:
    """The facts of a year, with the answers of the year before. Raises ValueError for a year that is not there."""
    if year not in years:
        raise ValueError(f"templama: {file} has no facts of {year}; its years are {', '.join(map(str, sorted(years)))}")
    last = years.get(year - 1, {})
    return [
        Fact(f.id, f.relation, f.query, f.answers, frozenset(last[key].answers) if key in last else None)
        for key, f in years[year].items()
    ]


def _key(fact: Fact) -> str:
    return fact.id.rsplit("_", 1)[0]


def _traced(years: Years, asked: Sequence[Fact], settings: TempLama, file: Path) -> list[Probe]:
    """The newest change of facts that the year does not ask: other subjects and relations, other sentences."""
    keys, sentences = {_key(fact) for fact in asked}, {fact.query for fact in asked}
    found: dict[str, Fact] = {}
    for year in sorted((year for year in years if year < settings.year), reverse=True):
        for fact in facts_of(years, year, file):
            if _unusable(fact, year) is None and fact.changed and fact.new and fact.query not in sentences:
                found.setdefault(_key(fact), fact)
    probes = {fact.query: fact.probe() for key, fact in found.items() if key not in keys}
    return drawn(list(probes.values()), settings.seed, lambda probe: f"trace/{probe.id}")[: settings.trace]


def _answers(record: Mapping[str, Any], place: str) -> tuple[str, ...]:
    names: list[Any] = [answer.get("name") if isinstance(answer, dict) else None for answer in record["answer"]]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{place}: expected 'answer' as a list of objects with a name, got {record['answer']!r}"[:300])
    return tuple(dict.fromkeys(name.strip() for name in names))


def _usable(fact: Fact, settings: TempLama, left_out: LeftOut) -> bool:
    """Whether a causal model can be asked the fact; if not, why is counted."""
    why = _unusable(fact, settings.year)
    if why:
        left_out.add(f"facts of {settings.year}", why)
    return why is None


def _unusable(fact: Fact, year: int) -> str | None:
    """Why a causal model cannot be asked the fact of a year; None where it can."""
    start = fact.query.find(GAP)
    if fact.relation not in RELATIONS:
        return f"relation {fact.relation}: its sentence does not end in the object"
    if start < 0 or not fact.query[:start].strip() or fact.query[start + len(GAP) :].strip(" ."):
        return f"its sentence does not end in {GAP}"
    return f"no record of {year - 1} to compare with" if fact.before is None else None


def _counts(facts: Sequence[Fact]) -> dict[str, dict[str, int]]:
    """Facts with a record of the year before, and those that changed: of all relations, and of the six asked."""
    known = [fact for fact in facts if fact.changed is not None]
    final = [fact for fact in known if fact.relation in RELATIONS]
    return {
        name: {"facts": len(some), "changed": sum(bool(fact.changed) for fact in some)}
        for name, some in {"all_relations": known, "object_final": final}.items()
    }
