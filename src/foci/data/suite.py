"""A suite's folder: its files, whatever it was made from.

    corpus.jsonl     the text to learn; `answer_spans` are characters [start, end) of what the probes ask
    learn.jsonl      probes of what the corpus teaches
    retain.jsonl     probes of what the model should know still
    held_out.jsonl   probes to learn and to retain that are in neither file; the reported point is chosen on them
    units.jsonl      documents that no probe and no corpus line came from, to fit a method on (lama-ckl only)
    trace.jsonl      probes of facts or entities that no other file asks, to trace through a model (templama, ecbd)
    suite.json       settings, checksums of what was read, what was used, what was left out and why

A file that would be empty is not written (suite.json says why); the same settings give the same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from foci.data.sources import Used
from foci.probes.controls import balanced_majority, majority
from foci.probes.probe import Probe, line_of
from foci.seeds import drawn
from foci.system.files import replacing

CORPUS, LEARN, RETAIN, HELD_OUT, UNITS, TRACE = (
    f"{name}.jsonl" for name in ("corpus", "learn", "retain", "held_out", "units", "trace")
)
RECORD = "suite.json"

Span = tuple[int, int]


@dataclass(frozen=True)
class Document:
    """A text of the corpus and the characters [start, end) of what it teaches, ascending and disjoint.

    `names` are those of whom it speaks, `groups` what each span is about, where it is known.
    """

    id: str
    text: str
    spans: tuple[Span, ...] = ()
    names: tuple[Span, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for spans in (self.spans, self.names):
            end = 0
            for span in spans:
                if not end <= span[0] < span[1] <= len(self.text):
                    raise ValueError(
                        f"document {self.id!r}: spans must be ascending, disjoint and within 0 to {len(self.text)}, "
                        f"got {spans}"
                    )
                end = span[1]
        if self.groups and len(self.groups) != len(self.spans):
            raise ValueError(f"document {self.id!r}: one group per span, got {self.groups} for {self.spans}")


class LeftOut:
    """Counts what a converter did not use, and why."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, what: str, why: str, count: int = 1) -> None:
        """`what` (such as "variant facts") was left out `count` times because of `why`; 0 leaves no trace."""
        if count:
            self._counts[what, why] += count

    def records(self) -> list[dict[str, Any]]:
        """Returns the entries of suite.json: {"what", "why", "count"}, in the order of the first time."""
        return [{"what": what, "why": why, "count": count} for (what, why), count in self._counts.items()]


@dataclass(frozen=True)
class Suite:
    """A suite as a converter made it. `settings` and `measured` go into suite.json; `notes` are for people.

    `rows` are lines of the corpus as they are written, after the documents.
    """

    name: str
    settings: Mapping[str, Any]
    sources: tuple[Used, ...]
    documents: tuple[Document, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    learn: tuple[Probe, ...] = ()
    retain: tuple[Probe, ...] = ()
    held_out: tuple[Probe, ...] = ()
    units: tuple[Mapping[str, Any], ...] = ()
    trace: tuple[Probe, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.learn:
            raise ValueError(f"{self.name}: expected probes to learn, got none ({self._why()})")
        asked = {probe.prompt.strip() for probe in (*self.learn, *self.retain, *self.held_out)}
        if both := [probe.id for probe in self.trace if probe.prompt.strip() in asked]:
            raise ValueError(
                f"{self.name}: {len(both)} trace probes are also asked, such as {both[0]!r}; remove one copy of each"
            )
        lists = {LEARN: self.learn, RETAIN: self.retain, HELD_OUT: self.held_out, TRACE: self.trace}
        for name, probes in lists.items():
            twice = [id for id, count in Counter(probe.id for probe in probes).items() if count > 1]
            if twice:
                raise ValueError(f"{self.name}: {name} would hold the id {twice[0]!r} twice; give every fact its own")

    def _why(self) -> str:
        reasons = [f"{r['count']} {r['what']} left out: {r['why']}" for r in self.left_out.records()]
        return "; ".join(reasons) or "nothing was read"

    def record(self) -> dict[str, Any]:
        """Returns the content of suite.json without the checksums of the written files."""
        used: dict[str, Sequence[Any]] = {
            CORPUS: (*self.documents, *self.rows), LEARN: self.learn, RETAIN: self.retain, HELD_OUT: self.held_out,
            UNITS: self.units, TRACE: self.trace,
        }  # fmt: skip
        notes = [*self.notes, *(_untested(source) for source in self.sources if not source.tested)]
        return {
            "suite": self.name,
            "foci": version("foci"),
            "settings": dict(self.settings),
            "sources": [asdict(source) for source in self.sources],
            "used": {name: len(lines) for name, lines in used.items() if lines},
            "left_out": self.left_out.records(),
            "notes": notes,
            "controls": {"majority": majority(self.learn), "balanced_majority": balanced_majority(self.learn)},
            "measured": dict(self.measured),
        }

    def write(self, folder: Path) -> Path:
        """Writes the suite's files into `folder` (made if missing) and takes an older suite's away; returns it.

        Raises FileExistsError where such files are there that no suite.json speaks of.
        """
        contents = {name: text.encode("utf-8") for name, text in self._contents().items()}
        sums = {name: hashlib.sha256(raw).hexdigest() for name, raw in contents.items()}
        contents[RECORD] = (json.dumps({**self.record(), "files": sums}, indent=2, ensure_ascii=False) + "\n").encode()
        names = (CORPUS, LEARN, RETAIN, HELD_OUT, UNITS, TRACE)
        there = [name for name in names if (folder / name).exists()]
        if there and not (folder / RECORD).is_file():
            raise FileExistsError(
                f"{folder} holds {there[0]} but no {RECORD}, so no suite wrote it; name another --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in contents.items():
            with replacing(folder / name) as part:
                part.write_bytes(raw)
        for name in set(there) - contents.keys():
            (folder / name).unlink()
        return folder

    def _contents(self) -> dict[str, str]:
        lines: dict[str, Iterable[Mapping[str, Any]]] = {
            CORPUS: (*map(_document_line, self.documents), *self.rows),
            LEARN: map(line_of, self.learn),
            RETAIN: map(line_of, self.retain),
            HELD_OUT: map(line_of, self.held_out),
            UNITS: self.units,
            TRACE: map(line_of, self.trace),
        }
        texts = {n: "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in some) for n, some in lines.items()}
        return {name: text for name, text in texts.items() if text}


def merged(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Documents of the same text become one (the first one's id) with the spans of all, overlapping ones joined."""
    found: dict[str, Document] = {}
    for document in documents:
        first = found.get(document.text)
        if first is None and joined(document.spans) == document.spans:
            found[document.text] = document
            continue
        both = (first, document) if first else (document,)
        spans = joined(span for one in both for span in one.spans)
        names = joined(span for one in both for span in one.names)
        found[document.text] = Document(both[0].id, document.text, spans, names)
    return tuple(found.values())


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Ascending, disjoint spans that cover the same characters.

    >>> joined([(5, 9), (0, 2), (7, 12)])
    ((0, 2), (5, 12))
    """
    made: list[Span] = []
    for start, end in sorted(spans):
        if made and start < made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return tuple(made)


@runtime_checkable
class Splits(Protocol):
    """Settings of a suite whose probes are not chosen by a model's answers."""

    @property
    def held_out(self) -> int: ...

    @property
    def limit(self) -> int | None: ...

    @property
    def seed(self) -> int: ...


def check_splits(name: str, settings: Splits) -> None:
    """Raises ValueError for a number of probes that cannot be."""
    if settings.held_out < 0 or (settings.limit is not None and settings.limit < 1):
        raise ValueError(
            f"{name}: held_out must be at least 0 and limit at least 1, "
            f"got {settings.held_out} and {settings.limit}; leave limit out for all probes"
        )


def parted(
    probes: Sequence[Probe], settings: Splits, left_out: LeftOut, fact: Callable[[Probe], str] = lambda probe: probe.id
) -> tuple[list[Probe], list[Probe]]:
    """(reported, held out): about `held_out` probes drawn by seed, then at most `limit` of the others, in their order.

    Probes of the same `fact` are on the same side. At most half of the probes are held out.
    """
    order = drawn(probes, settings.seed, fact)
    count = min(settings.held_out, len(order) // 2)
    while 0 < count < len(order) and fact(order[count]) == fact(order[count - 1]):
        count -= 1
    held, kept = order[:count], order[count:][: settings.limit]
    if rest := len(order) - len(held) - len(kept):
        left_out.add(f"{probes[0].role} probes", f"not drawn: limit is {settings.limit}", rest)
    chosen = {probe.id for probe in held}, {probe.id for probe in kept}
    return [p for p in probes if p.id in chosen[1]], [p for p in probes if p.id in chosen[0]]


def set_apart(
    probes: Sequence[Probe], count: int, seed: int, thing: Callable[[Probe], str]
) -> tuple[list[Probe], list[Probe]]:
    """(to trace, the rest): about `count` probes drawn by seed, one or more of each drawn `thing`, none of the others.

    At most half of the probes are set apart.
    """
    chosen: set[str] = set()
    wanted, taken = min(count, len(probes) // 2), 0
    sizes = Counter(map(thing, probes))
    for name in drawn(sorted(sizes), seed, lambda name: f"trace/{name}"):
        if taken + sizes[name] <= wanted:
            chosen.add(name)
            taken += sizes[name]
    return [p for p in probes if thing(p) in chosen], [p for p in probes if thing(p) not in chosen]


def _document_line(document: Document) -> dict[str, Any]:
    line: dict[str, Any] = {"id": document.id, "text": document.text}
    line["answer_spans"] = [list(span) for span in document.spans]
    if document.names:
        line["name_spans"] = [list(span) for span in document.names]
    if document.groups:
        line["answer_groups"] = list(document.groups)
    return line


def _untested(source: Used) -> str:
    return f"{source.file}: SHA-256 {source.sha256} is not that of a file this converter was tested on"
