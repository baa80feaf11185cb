"""Reads all documents of a corpus, keeps apart what cannot be used, and decides when that is too much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foci.corpus.documents import BadLine, Document, Empty, LeftOut, Sample, find_sources, read_source
from foci.system.words import counted, form

FORGIVEN = 10
"""Documents of which one bad one never ends a run (unless none is allowed)."""


@dataclass(frozen=True)
class FileRead:
    """The yield of one file: rows, words, and pages with text (0 where it has no pages).

    A row whose text an earlier file has too is counted there.
    """

    file: str
    rows: int
    words: int
    pages: int


class CorpusError(ValueError):
    """Raised where a corpus has too many bad lines, or no good one; `bad` holds them, for quarantine.jsonl.

    `reads` says of each file what came out of it, `empty` and `skipped` are as in `Gathered`.
    """

    def __init__(
        self, message: str, bad: Sequence[BadLine], gathered: "Gathered", reads: Sequence[FileRead] = ()
    ) -> None:
        super().__init__(message)
        self.bad, self.reads = tuple(bad), tuple(reads)
        self.empty, self.skipped = gathered.empty, gathered.skipped


@dataclass(frozen=True)
class Gathered:
    """The documents of a corpus in order, and what was left out.

    `bad` is damage, `parts` are parts that are missing from documents, `empty` names files and records without text,
    `skipped` files of unknown kind, `files` names all that were read. `samples` are examples that are no plain text.
    `elsewhere` counts documents and samples that were handed on, and are not here.
    """

    documents: tuple[Document, ...]
    bad: tuple[BadLine, ...]
    parts: tuple[LeftOut, ...]
    empty: tuple[Empty, ...]
    files: tuple[str, ...]
    skipped: tuple[str, ...]
    samples: tuple[Sample, ...] = ()
    elsewhere: int = 0

    @property
    def total(self) -> int:
        """The number of documents and samples, those that are bad included."""
        return len(self.documents) + len(self.samples) + self.elsewhere + len(self.bad)


def gather(
    paths: Sequence[str | Path],
    text_field: str,
    hand_on: tuple[Callable[[Document], None], Callable[[Sample], None]] | None = None,
) -> Gathered:
    """Reads files, folders and `hub:` data sets. Raises as `find_sources` and the formats do.

    `hand_on` takes each document, and each sample, as soon as it is read, so that none is kept here.
    """
    sources, skipped = find_sources(paths)
    documents, samples = list[Document](), list[Sample]()
    take_document, take_sample = hand_on or (documents.append, samples.append)
    bad: list[BadLine] = []
    parts: list[LeftOut] = []
    empty: list[Empty] = []
    count = 0
    for source in sources:
        for read in read_source(source, text_field):
            if isinstance(read, Document):
                take_document(read)
                count += 1
            elif isinstance(read, Sample):
                take_sample(read)
                count += 1
            elif isinstance(read, Empty):
                empty.append(read)
            elif isinstance(read, LeftOut):
                parts.append(read)
            else:
                bad.append(read)
    return Gathered(
        tuple(documents), tuple(bad), tuple(parts), tuple(empty), tuple(sources), tuple(skipped), tuple(samples),
        count - len(documents) - len(samples),
    )  # fmt: skip


def check_share(
    gathered: Gathered, bad: Sequence[BadLine], lost: int, max_bad: float, reads: Sequence[FileRead] = ()
) -> None:
    """Raises CorpusError where more documents are lost than the share `max_bad` (0 to 1) allows, or all of them.

    `bad` says why, `lost` counts the documents. One bad document among `FORGIVEN` or more never ends a run, unless
    `max_bad` is 0.
    """
    total = gathered.total
    if not total:
        named = ", ".join(f"{empty.file} ({empty.reason})" for empty in gathered.empty[:3])
        raise CorpusError(f"corpus empty: nothing to learn in {named}; name files with text", bad, gathered, reads)
    if lost == total:
        raise CorpusError(f"corpus empty after quarantine: {_reasons(bad, lost, total)}", bad, gathered, reads)
    allowed = max(max_bad * total, 1 if max_bad and total >= FORGIVEN else 0)
    if lost > allowed:
        message = f"corpus.max_bad is {max_bad:.1%}, but {_reasons(bad, lost, total)} or raise corpus.max_bad"
        raise CorpusError(message, bad, gathered, reads)


def _reasons(bad: Sequence[BadLine], lost: int, total: int) -> str:
    """Returns how many documents are bad, and the first three reasons."""
    bad = [one for one in bad if not isinstance(one, LeftOut)] or bad
    reasons = "; ".join(map(str, bad[:3]))
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    said = f"{lost} of {counted(total, 'document')} ({lost / total:.1%}) {form(lost, 'is', 'are')} bad"
    return f"{said}: {reasons}{more}. Repair them"
