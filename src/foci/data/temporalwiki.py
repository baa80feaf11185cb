"""TemporalWiki (Jang et al., arXiv 2204.14211): triples that changed between two dumps, and triples that did not.

A triple is asked as "subject relation object", the form of the published evaluation. The text that tells the
changes (the difference of two dumps) is not published with the triples: it is the user's own, given as `corpus`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from foci.corpus.documents import BadLine, Sample, find_sources, read_source
from foci.data import sources
from foci.data.suite import Document, LeftOut, Suite, check_splits, joined, parted
from foci.probes.probe import Probe, Role

NAME = "temporalwiki"

_KEYS = {"subject": str, "relation": str, "object": str}


@dataclass(frozen=True)
class TemporalWiki:
    """Settings. `limit`: most probes to learn, and most to retain (None = all); `held_out`: so many more of both."""

    held_out: int = 64
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_splits(NAME, self)


def convert(paths: Sequence[Path], settings: TemporalWiki, corpus: Sequence[Path] = ()) -> Suite:
    """Reads one file of changed and one of unchanged triples (or a folder that holds one of each).

    `corpus`: files or folders of the diff's text (.txt, .md, .jsonl, .parquet), as `foci learn` reads them.
    """
    left = LeftOut()
    changed_file, unchanged_file = files_of(paths)
    seen: set[tuple[str, str, str]] = set()
    changed = _probes(changed_file, "learn", seen, left)
    unchanged = _probes(unchanged_file, "retain", seen, left)
    learn, held_learn = parted(changed, settings, left, lambda probe: probe.prompt)
    retain, held_retain = parted(unchanged, settings, left, lambda probe: probe.prompt)
    triples = [(subject, object) for _, subject, object in _triples(changed_file)]
    documents, found = _documents(corpus, triples, left)
    return Suite(
        NAME,
        {**asdict(settings), "corpus": [Path(path).name for path in corpus]},
        tuple(sources.used(NAME, file) for file in (changed_file, unchanged_file)),
        documents=documents,
        learn=tuple(learn),
        retain=tuple(retain),
        held_out=(*held_learn, *held_retain),
        left_out=left,
        notes=tuple(_notes(learn, len(documents), found)),
        measured={"changed_in_corpus": found, "changed": len(changed)},
    )


def files_of(paths: Sequence[Path]) -> tuple[Path, Path]:
    """(changed, unchanged) of two files or of a folder that holds one of each; told apart by their names.

    Of one file, the other is taken from beside it. Raises FileNotFoundError where one is missing, ValueError where
    there are several of one kind.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*changed*.jsonl")) if path.is_dir() else [sources.located(NAME, path)]
    unnamed = [file.name for file in files if "changed" not in file.name]
    if unnamed and len(files) < 2:  # of two, the one that is not of unchanged triples is of changed ones
        raise ValueError(
            f"temporalwiki: expected 'changed' or 'unchanged' in the name of a file, got {unnamed[0]}; rename it, or "
            "name both files"
        )
    found: list[Path] = []
    for kind in ("changed", "unchanged"):
        some = [file for file in files if ("unchanged" in file.name) == (kind == "unchanged")]
        if not some:
            some = [sources.located(NAME, _sibling(kind, paths, files))]
        if len(some) > 1:
            raise ValueError(
                f"temporalwiki: expected one file of {kind} triples, got {', '.join(f.name for f in some)}; "
                "name the two files of one period"
            )
        found.append(some[0])
    return found[0], found[1]


def _sibling(kind: str, paths: Sequence[Path], files: Sequence[Path]) -> Path:
    """Where the file of this kind should be: beside the other one, of the same period."""
    period = files[0].name.replace("unchanged", "changed") if files else "0901-1001_changed.jsonl"
    folder = files[0].parent if files else next((path for path in paths), Path())
    return folder / period.replace("changed", kind)


def _probes(file: Path, role: Role, seen: set[tuple[str, str, str]], left_out: LeftOut) -> list[Probe]:
    what = "changed triples" if role == "learn" else "unchanged triples"
    probes = []
    for number, record in sources.read_records(NAME, file, _KEYS):
        triple = (record["subject"].strip(), record["relation"].strip(), record["object"].strip())
        if not all(triple):
            left_out.add(what, "subject, relation or object is empty")
        elif triple in seen:
            left_out.add(what, "an earlier line or file has the same triple")
        else:
            seen.add(triple)
            subject, relation, object = triple
            id = f"{file.stem}:{number}"
            probes.append(Probe(id, role, "cloze", f"{subject} {relation}", object, group=relation))
    return probes


def _triples(file: Path) -> list[tuple[str, str, str]]:
    records = (record for _, record in sources.read_records(NAME, file, _KEYS))
    stripped = ((r["relation"].strip(), r["subject"].strip(), r["object"].strip()) for r in records)
    return [triple for triple in stripped if all(triple)]


def _documents(
    corpus: Sequence[Path], facts: Sequence[tuple[str, str]], left_out: LeftOut
) -> tuple[tuple[Document, ...], int]:
    """The corpus with the objects marked in documents that name their subject; how many facts are told so."""
    if not corpus:
        return (), 0
    documents: dict[str, Document] = {}
    told: set[tuple[str, str]] = set()
    for source in find_sources(corpus)[0]:
        for found in read_source(source, "text"):
            if isinstance(found, BadLine | Sample):
                reason = found.reason if isinstance(found, BadLine) else "a conversation, not plain text"
                left_out.add("corpus lines", reason)
                continue
            if found.text in documents:
                left_out.add("corpus documents", "an earlier one has the same text")
                continue
            here = [fact for fact in facts if fact[0] in found.text and fact[1] in found.text]
            told.update(here)
            spans = joined([*(found.spans or ()), *(span for _, object in here for span in _all(found.text, object))])
            documents[found.text] = Document(f"{Path(source).name}:{found.line}", found.text, spans)
    return tuple(documents.values()), len(told)


def _all(text: str, part: str) -> list[tuple[int, int]]:
    """Occurrences of `part` in `text`, one after another."""
    found, start = [], text.find(part)
    while start >= 0:
        found.append((start, start + len(part)))
        start = text.find(part, start + len(part))
    return found


def _notes(learn: Sequence[Probe], documents: int, found: int) -> list[str]:
    notes = []
    if not documents:
        notes.append(
            "no corpus: the text of the difference is not published with the triples; give yours with --corpus "
            "(files or folders) to get corpus.jsonl"
        )
    elif not found:
        notes.append("no document of the corpus names the subject and the object of a changed triple")
    several = [count for count in Counter(probe.prompt for probe in learn).values() if count > 1]
    if several:
        notes.append(
            f"{sum(several)} probes to learn share their question with another one ({len(several)} questions): "
            "not all of them can be answered right"
        )
    return notes
