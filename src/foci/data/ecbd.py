"""ECBD, entity cloze by date (Onoe et al., arXiv 2205.02832), in the form of entity_knowledge_propagation.

Corpus: the definitions of entities that are newer than a model. To learn: spans of sentences about them. To
retain: spans of sentences about popular entities (a second file of the same form). A masked sentence holds
`<extra_id_0>`; the span stands in its label between `<extra_id_0> ` and ` <extra_id_1>`. The sentence is asked
whole, with the gold span in its place, so that the space before the span belongs to the span's first token.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foci.data import sources
from foci.data.suite import Document, LeftOut, Suite, check_splits, merged, parted, set_apart
from foci.probes.probe import Probe, Role

NAME = "ecbd"
MASK = "<extra_id_0>"
_BEFORE, _AFTER = "<extra_id_0> ", " <extra_id_1>"
_KEYS = {"ex_id": str, "definition": str, "def_target": str, "probe_sentences": dict}


@dataclass(frozen=True)
class Ecbd:
    """Settings. `limit`: most probes to learn, and most to retain (None = all); `held_out`: so many more of both.

    `trace`: about so many probes to trace through a model, of entities that no other probe asks about.
    """

    held_out: int = 64
    limit: int | None = None
    seed: int = 0
    trace: int = 0

    def __post_init__(self) -> None:
        if self.trace < 0:
            raise ValueError(f"ecbd: trace must be at least 0, got {self.trace}")
        check_splits(NAME, self)


def convert(path: Path, settings: Ecbd, popular: Path | None = None) -> Suite:
    """Reads a file of new entities (or the file of noun-phrase spans in the folder `path`), and one of popular ones."""
    file = sources.located(NAME, Path(path))
    left = LeftOut()
    records = list(sources.read_records(NAME, file, _KEYS))
    documents = [found for number, record in records if (found := _definition(record, f"{file}:{number}", left))]
    probes = _probes(file, records, "learn", left)
    traced, probes = set_apart(probes, settings.trace, settings.seed, _entity)
    learn, held_learn = parted(probes, settings, left)
    retain: list[Probe] = []
    held_retain: list[Probe] = []
    read = [file]
    if popular is not None:
        read.append(sources.located(NAME, Path(popular)))
        known = _probes(read[1], list(sources.read_records(NAME, read[1], _KEYS)), "retain", left)
        retain, held_retain = parted(known, settings, left)
    corpus = merged(documents)
    notes = [f"{len(documents)} definitions are {len(corpus)} different texts; the spans of all are marked"]
    if popular is None:
        notes.append("nothing to retain: give a file of popular entities with --popular (the same form)")
    return Suite(
        NAME,
        asdict(settings),
        tuple(sources.used(NAME, one) for one in read),
        documents=corpus,
        learn=tuple(learn),
        retain=tuple(retain),
        held_out=(*held_learn, *held_retain),
        trace=tuple(traced),
        left_out=left,
        notes=tuple(notes),
    )


def filled(sentence: str, label: str) -> tuple[str, tuple[int, int]] | str:
    """The sentence with its span in place and the span's characters [start, end); or why there is none.

    >>> filled("It rained <extra_id_0>.", "<extra_id_0> all day <extra_id_1>")
    ('It rained all day.', (10, 17))
    """
    if sentence.count(MASK) != 1:
        return f"its sentence has {sentence.count(MASK)} masks, not 1"
    if not (label.startswith(_BEFORE) and label.endswith(_AFTER)):
        return "its label does not stand between the two marks"
    span = label[len(_BEFORE) : -len(_AFTER)]
    if not span.strip():
        return "its span is empty"
    start = sentence.index(MASK)
    return sentence.replace(MASK, span), (start, start + len(span))


def _entity(probe: Probe) -> str:
    """A probe's entity: its record's ex_id (`Gettr_68107516_15_0`: page, sentence, span) without the last two."""
    return probe.id.rpartition("/")[0].rsplit("_", 2)[0]


def _definition(record: dict[str, Any], place: str, left_out: LeftOut) -> Document | None:
    made = filled(record["definition"], record["def_target"])
    if isinstance(made, str):
        left_out.add("definitions", made)
        return None
    return Document(place.rpartition("/")[2], made[0], (made[1],))


def _probes(file: Path, records: list[tuple[int, dict[str, Any]]], role: Role, left_out: LeftOut) -> list[Probe]:
    what = "probe sentences of new entities" if role == "learn" else "probe sentences of popular entities"
    probes: dict[tuple[str, int], Probe] = {}
    for number, record in records:
        for template, sentence in _sentences(record, f"{file}:{number}"):
            made = filled(sentence["probe_sentence"], sentence["label"])
            if isinstance(made, str):
                left_out.add(what, made)
                continue
            text, (start, end) = made
            if not text[:start].strip():
                left_out.add(what, "the span opens the sentence: a causal model needs words before it")
            elif (text, start) in probes:
                left_out.add(what, "an earlier one asks the same")
            else:
                id = f"{record['ex_id']}/{template}"
                probes[text, start] = Probe(
                    id, role, "span", text[:start], text[start:end], text[end:], verbatim=True
                )  # fmt: skip
    return list(probes.values())


def _sentences(record: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, str]]]:
    for template, sentence in record["probe_sentences"].items():
        if not isinstance(sentence, dict) or not all(
            isinstance(sentence.get(k), str) for k in ("probe_sentence", "label")
        ):
            raise ValueError(
                f"{place}: expected {template!r} as an object with probe_sentence and label, got {sentence!r}"
            )
        yield template, sentence
