"""LAMA-ckl (Seo, Lee, Yeo, arXiv 2407.16920), selected again for the model at hand.

TO-LEARN: variant facts of which the model gets no answer token right (teacher-forced accuracy 0).
NOT-TO-FORGET: invariant facts that it gets all right (accuracy 1). Both are asked in the descriptive sentence
("Libya maintains diplomatic relations with Brazil ."); what follows the object cannot change a causal model's
answer and is kept as the probe's suffix. The corpus is the evidence of the TO-LEARN facts.

Held out, to choose the point that is reported: the TO-LEARN facts in the schematic wording ("Guess the object.
..."), and NOT-TO-FORGET facts that the reported probes do not hold. Units: facts that are in none of these, and
whose document and subject are no TO-LEARN fact's, to fit a method on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from foci import models
from foci.data import sources
from foci.data.suite import Document, LeftOut, Suite, merged
from foci.probes.asking import Answer, answer
from foci.probes.probe import Probe, Role
from foci.seeds import drawn
from foci.system.words import counted

NAME = "lama-ckl"
FILES = tuple(source.name for source in sources.SOURCES[NAME])
VARIANT = frozenset(f"P{number}" for number in (31, 39, 101, 106, 108, 127, 136, 159, 264, 413, 463, 530, 1303))
"""Relations in which a subject can have many objects, or another one later."""

_KEYS = {
    "relation_code": str, "uuid": str, "task_descriptive": str, "task_schematic": str, "subject": str,
    "object": str, "masked_evidence": str, "evidence": str, "invariant": bool,
}  # fmt: skip
_MASK = "[MASK]"

Template = Literal["descriptive", "schematic"]
Asks = Callable[[Sequence[Probe]], list[Answer]]
"""Puts probes to the model; answers in the same order."""


@dataclass(frozen=True)
class LamaCkl:
    """Settings of the selection. `seed` decides which candidates are taken (`foci.data.suite.drawn`)."""

    model: str = "smollm2-135m"
    learn: int = 64
    """TO-LEARN facts at most."""
    retain: int = 64
    """NOT-TO-FORGET facts at most."""
    held_out: int = 64
    """Further NOT-TO-FORGET facts at most, and TO-LEARN facts asked again in the schematic wording; 0 = none."""
    seed: int = 0
    batch_size: int = 32
    """Probes per forward pass; changes speed, not answers."""

    def __post_init__(self) -> None:
        for name, low in {"learn": 1, "retain": 0, "held_out": 0, "batch_size": 1}.items():
            if getattr(self, name) < low:
                raise ValueError(f"lama-ckl: {name} must be at least {low}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Fact:
    """A published unit: its two wordings, each with the characters of the object, and its evidence."""

    id: str
    relation: str
    subject: str
    object: str
    variant: bool
    sentences: dict[Template, tuple[str, tuple[int, int]]]
    document: Document

    @property
    def what(self) -> str:
        """Which side it is a candidate of."""
        return "variant facts" if self.variant else "invariant facts"

    def probe(self, role: Role, template: Template = "descriptive") -> Probe:
        """The question for the object; only the schematic one's id says its wording."""
        text, (start, end) = self.sentences[template]
        id = self.id if template == "descriptive" else f"{self.id}/{template}"
        made = Probe(id, role, "cloze", text[:start].rstrip(" "), text[start:end], text[end:], self.relation)
        return made if made.text == text else replace(made, prompt=text[:start], verbatim=True)

    def unit(self) -> dict[str, Any]:
        """A line of units.jsonl: a document and the schematic question about it."""
        text, (start, end) = self.sentences["schematic"]
        spans = [list(span) for span in self.document.spans]
        document = {"id": self.id, "text": self.document.text, "answer_spans": spans}
        return {**document, "group": self.relation, "prompt": text[:start].rstrip(" "), "answer": text[start:end]}


def convert(path: Path, settings: LamaCkl, tell: Callable[[str], None] = lambda _: None) -> Suite:
    """Reads the published files in the folder `path`, asks the model, selects. `tell` hears of progress.

    Raises FileNotFoundError, with where the files are published, when one is missing.
    """
    left = LeftOut()
    files = [sources.located(NAME, Path(path) / name) for name in FILES]
    facts = read_facts(files, left)
    loaded = models.load(settings.model)
    tell(f"asking {settings.model} {counted(len(facts), 'fact')}")

    def ask(probes: Sequence[Probe]) -> list[Answer]:
        made: dict[str, Answer] = {}
        by_length = sorted(probes, key=lambda probe: len(probe.text))
        step = 8 * settings.batch_size
        for start in range(0, len(by_length), step):
            part = by_length[start : start + step]
            found = answer(loaded.model, loaded.tokenizer, part, batch_size=settings.batch_size)
            made.update((probe.id, one) for probe, one in zip(part, found, strict=True))
            tell(f"asked {len(made)} of {len(probes)}")
        return [made[probe.id] for probe in probes]

    suite = select(facts, settings, ask, left)
    measured = {"model": {"name": settings.model, "fingerprint": loaded.fingerprint}, **suite.measured}
    return replace(suite, sources=tuple(sources.used(NAME, file) for file in files), measured=measured)


def read_facts(files: Sequence[Path], left_out: LeftOut) -> list[Fact]:
    """The facts of published files, in order; what cannot be used, or comes twice, is counted in `left_out`."""
    facts: dict[tuple[str, str, str], Fact] = {}
    ids: set[str] = set()
    for file in files:
        for _, record in sources.read_records(NAME, file, _KEYS):
            made = _fact(record)
            what = "invariant facts" if record["invariant"] else "variant facts"
            key = (record["subject"], record["relation_code"], record["object"])
            if isinstance(made, str):
                left_out.add(what, made)
            elif record["uuid"] in ids or key in facts:
                left_out.add(what, "an earlier line or file has the same fact")
            else:
                facts[key] = made
                ids.add(made.id)
    return list(facts.values())


def select(facts: Sequence[Fact], settings: LamaCkl, ask: Asks, left_out: LeftOut) -> Suite:
    """The suite for the model behind `ask`. Facts are asked once; the seed decides among those that qualify."""
    answers = ask([fact.probe("learn" if fact.variant else "retain") for fact in facts])
    by_id = {answer.probe_id: answer for answer in answers}
    learn = _candidates([fact for fact in facts if fact.variant], by_id, 0.0, settings.seed, left_out)
    retain = _candidates([fact for fact in facts if not fact.variant], by_id, 1.0, settings.seed, left_out)
    learn = _at_most(learn, settings.learn, "variant facts", left_out)
    documents = merged(fact.document for fact in learn)
    read = {document.text for document in documents}
    left_out.add("invariant facts", "its evidence is in the corpus", sum(f.document.text in read for f in retain))
    retain = [fact for fact in retain if fact.document.text not in read]
    retain = _at_most(retain, settings.retain + settings.held_out, "invariant facts", left_out)
    kept, held = retain[: settings.retain], retain[settings.retain :]
    again = [fact.probe("learn", "schematic") for fact in learn] if settings.held_out else []
    held_answers = [*(ask(again) if again else []), *(by_id[fact.id] for fact in held)]
    measured = {
        "asked": _asked(answers),
        "learn": _means([by_id[fact.id] for fact in learn]),
        "retain": _means([by_id[fact.id] for fact in kept]),
        "held_out_learn": _means(held_answers[: len(again)]),
        "held_out_retain": _means(held_answers[len(again) :]),
    }
    return Suite(
        NAME,
        asdict(settings),
        sources=(),
        documents=documents,
        learn=tuple(fact.probe("learn") for fact in learn),
        retain=tuple(fact.probe("retain") for fact in kept),
        held_out=(*again, *(fact.probe("retain") for fact in held)),
        units=tuple(fact.unit() for fact in _units(facts, learn, retain)),
        left_out=left_out,
        notes=tuple(_notes(settings, learn, kept, held, len(documents))),
        measured=measured,
    )


def place(sentence: str, subject: str, object: str) -> tuple[int, int] | None:
    """Characters [start, end) of the object in a sentence that names the subject too; None if it is not there.

    Both can be part of each other: the object is the last whole-word occurrence that stands after an occurrence
    of the subject, or else one that does not overlap it.

    >>> place("The capital of Guatemala is Guatemala City .", "Guatemala", "Guatemala City")
    (28, 42)
    >>> place("Honda Civic is produced by Honda .", "Honda Civic", "Honda")
    (27, 32)
    """
    objects, subjects = _words(sentence, object), _words(sentence, subject)
    after = [found for found in objects if any(found[0] >= end for _, end in subjects)]
    apart = [found for found in objects if any(found[0] >= end or found[1] <= start for start, end in subjects)]
    return next(reversed(after or apart), None)


def _fact(record: dict[str, Any]) -> Fact | str:
    """The fact, or why it cannot be used."""
    subject, object = record["subject"].strip(), record["object"].strip()
    if not subject or not object:
        return "no subject or no object"
    if not record["invariant"] and record["relation_code"] not in VARIANT:
        return f"its relation is none of the {len(VARIANT)} variant ones"
    sentences: dict[Template, tuple[str, tuple[int, int]]] = {}
    for template, text in (("descriptive", record["task_descriptive"]), ("schematic", record["task_schematic"])):
        span = place(text, subject, object)
        if span is None or not text[: span[0]].strip():
            return f"the object cannot be found after other words in the {template} sentence"
        sentences[template] = (text, span)  # type: ignore[index]
    spans = _evidence_spans(record["evidence"], record["masked_evidence"], object)
    if not spans:
        return "the object does not occur in the evidence"
    document = Document(record["uuid"], record["evidence"], spans)
    relation = record["relation_code"]
    return Fact(record["uuid"], relation, subject, object, not record["invariant"], sentences, document)


def _evidence_spans(evidence: str, masked: str, object: str) -> tuple[tuple[int, int], ...]:
    """Where the object stands: at the mask if the masked text fits, else wherever the object is a whole word."""
    start = masked.find(_MASK)
    if start >= 0 and masked.replace(_MASK, object, 1) == evidence:
        return ((start, start + len(object)),)
    return tuple(_words(evidence, object))


def _words(text: str, part: str) -> list[tuple[int, int]]:
    """Whole-word occurrences of `part` in `text`."""
    return [found.span() for found in re.finditer(rf"(?<!\w){re.escape(part)}(?!\w)", text)]


def _candidates(
    facts: Sequence[Fact], answers: dict[str, Answer], accuracy: float, seed: int, left_out: LeftOut
) -> list[Fact]:
    """Facts of this accuracy in the order of the draw, one for each subject and relation (they ask the same)."""
    what = facts[0].what if facts else ""
    right = [fact for fact in facts if answers[fact.id].accuracy == accuracy]
    why = "the model has a part of the answer" if accuracy == 0 else "the model has not all of the answer"
    left_out.add(what, f"{why} (accuracy {'above 0' if accuracy == 0 else 'below 1'})", len(facts) - len(right))
    found: dict[tuple[str, str], Fact] = {}
    for fact in drawn(right, seed, lambda fact: fact.id):
        found.setdefault((fact.subject, fact.relation), fact)
    left_out.add(what, "same subject and relation as another one, with another object", len(right) - len(found))
    return list(found.values())


def _at_most(facts: list[Fact], count: int, what: str, left_out: LeftOut) -> list[Fact]:
    left_out.add(what, "not drawn: there are more than asked for", max(0, len(facts) - count))
    return facts[:count]


def _units(facts: Sequence[Fact], learn: Sequence[Fact], retain: Sequence[Fact]) -> list[Fact]:
    """Facts of no probe, whose document and subject are no TO-LEARN fact's."""
    probed = {fact.id for fact in (*learn, *retain)}
    texts, subjects = {fact.document.text for fact in learn}, {fact.subject for fact in learn}
    return [f for f in facts if f.id not in probed and f.document.text not in texts and f.subject not in subjects]


def _notes(
    settings: LamaCkl, learn: Sequence[Fact], retain: Sequence[Fact], held: Sequence[Fact], documents: int
) -> list[str]:
    notes = []
    for what, asked, got in (
        ("to learn", settings.learn, len(learn)),
        ("to retain", settings.retain, len(retain)),
        ("to retain, held out", settings.held_out, len(held)),
    ):
        if got < asked:
            notes.append(f"{asked} facts {what} were asked for, {got} qualify")
    if documents < len(learn):
        notes.append(f"{len(learn) - documents} facts share a document with another one: {documents} documents")
    if told := sum(fact.object in fact.subject for fact in retain):
        notes.append(f"in {told} of {len(retain)} facts to retain the object is a part of the subject")
    return notes


def _asked(answers: Sequence[Answer]) -> dict[str, Any]:
    """How the model stands to all facts: how many, of accuracy 0, of accuracy 1, by role."""
    made = {}
    for name, role in (("variant", "learn"), ("invariant", "retain")):
        scores = [answer.accuracy for answer in answers if answer.role == role]
        made[name] = {"facts": len(scores), "accuracy_0": scores.count(0.0), "accuracy_1": scores.count(1.0)}
    return made


def _means(answers: Sequence[Answer]) -> dict[str, float] | None:
    """Mean accuracy and mean NLL (nats per answer token); None of nothing."""
    if not answers:
        return None
    count = len(answers)
    return {"accuracy": sum(a.accuracy for a in answers) / count, "nll": sum(a.nll for a in answers) / count}
