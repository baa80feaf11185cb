"""Reads files into rows of tokens. A line that cannot be used is counted, and kept with the reason."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from foci.corpus.conversations.notes import notes_of
from foci.corpus.conversations.rows import rows_of_samples
from foci.corpus.documents import BadLine, Document, Sample
from foci.corpus.gathering import CorpusError, FileRead, Gathered, check_share, gather
from foci.corpus.plain import named_words
from foci.corpus.reading import Reading
from foci.corpus.rows import Encoder, add_rows, make_rows
from foci.corpus.spool import Documents, Samples
from foci.corpus.store import read_rows, write_quarantine, write_rows
from foci.corpus.stored import RowWriter
from foci.corpus.tokens import row_id, tokenizer_fingerprint
from foci.focus import Row
from foci.rows import lengths_of

__all__ = [
    "BadLine",
    "Corpus",
    "CorpusError",
    "Document",
    "FileRead",
    "Reading",
    "make_rows",
    "read_corpus",
    "read_rows",
    "row_id",
    "tokenizer_fingerprint",
    "write_quarantine",
    "write_rows",
]


@dataclass(frozen=True)
class Corpus:
    """The rows to train on (unique ids, in the order of the files) and what was left out.

    `files` counts what was read, `documents` those that gave rows, `duplicates` documents left out because
    an earlier one has the same text, `split` documents that were cut into several rows, `repeated` rows left
    out because an earlier row has the same text. `skipped` names files of unknown ending, `empty` files and records
    without text. `spelled` counts, by word, the documents that spell a control word of the tokenizer (`<s>`), which is
    read as text. `reads` says of each file what came out of it. `notes` are sentences on how examples were read that
    people may not expect.
    """

    rows: Sequence[Row]
    bad: tuple[BadLine, ...]
    files: int
    documents: int
    duplicates: int
    split: int
    repeated: int = 0
    skipped: tuple[str, ...] = ()
    empty: tuple[BadLine, ...] = ()
    spelled: Mapping[str, int] = field(default_factory=dict)
    reads: tuple[FileRead, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, special ones included."""
        return int(lengths_of(self.rows).sum())

    @property
    def quarantined(self) -> int:
        """The number of documents and parts of documents that gave no row; each is in `bad`."""
        return len(self.bad)

    def counts(self) -> dict[str, int]:
        """Returns the counts that corpus.json holds."""
        return {
            "files": self.files,
            "documents": self.documents,
            "rows": len(self.rows),
            "tokens": self.tokens,
            "duplicates": self.duplicates,
            "quarantined": self.quarantined,
            "split": self.split,
            "repeated": self.repeated,
            "skipped": len(self.skipped),
            "empty": len(self.empty),
        }


def read_corpus(
    paths: str | Path | Sequence[str | Path],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    max_bad: float = 0.01,
    text_field: str = "text",
    add_eos: bool = True,
    reading: Reading | None = None,
) -> Corpus:
    """Reads files, folders and `hub:NAME[:SPLIT]` data sets into rows of at most `max_length` tokens.

    .txt and .md hold one document, .jsonl one per line, .parquet and the hub one per record, all UTF-8. A record's text
    stands in `text_field`. Every key that ends in `_spans` lists characters [start, end) of the text and becomes a
    column of the rows, 1 on the tokens of these characters: `answer_spans` the column "answer", `name_spans` "name". A
    key `answer_groups` beside it names a group for each span, and adds a column for each group ("answer:town").

    Rows begin as the tokenizer begins a text; the last row of a document alone ends as it ends one, and with its EOS
    token unless `add_eos` is False. Special tokens that are written out in a text are read as plain text.

    Records of conversations, completions or token ids (`foci.corpus.conversations`) are known by their keys. A
    conversation is written with the tokenizer's chat template. `text` of their rows is what is learned, and the column
    "unweighted" is 1 on all other tokens; `reading` has settings for both kinds.

    Raises FileNotFoundError for a missing path, CorpusError (a ValueError) when no row is left or a larger
    share than `max_bad` (0 to 1) of all documents is bad, ValueError for settings that cannot work.
    """
    if not 0 <= max_bad <= 1:
        raise ValueError(f"corpus.max_bad: expected a share from 0 to 1, got {max_bad}; 0.01 is 1 %")
    reading = reading or Reading()
    documents, samples = Documents(), Samples()
    sources = [paths] if isinstance(paths, str | Path) else list(paths)
    gathered = gather(sources, text_field, (documents.add, samples.add))
    writer, spelled = RowWriter(), _Spelled(tokenizer)
    encoder = Encoder.of(tokenizer, max_length=max_length, add_eos=add_eos, control_words=reading.control_words)
    made = add_rows(writer, documents if reading.control_words else spelled.by_documents(documents), encoder)
    texts = spelled.by_samples(samples)
    other = rows_of_samples(writer, texts, tokenizer, max_length=max_length, loss=reading.loss, add_eos=add_eos)
    bad = (*gathered.bad, *gathered.parts, *made.bad, *other.bad)
    reads = _reads(gathered, made.by_file | other.by_file, documents.words + samples.words, documents.pages)
    lost = len(documents) - made.documents + len(samples) - other.used - other.duplicates
    check_share(gathered, bad, len(gathered.bad) + lost, max_bad, reads)
    return Corpus(
        writer.rows(),
        bad,
        len(gathered.files),
        made.documents + other.used,
        documents.given - len(documents) + other.duplicates,
        made.split + other.split,
        made.repeated + other.repeated,
        gathered.skipped,
        gathered.empty,
        spelled.counts(),
        reads,
        tuple(notes_of(made, other, tokenizer, reading)),
    )


class _Spelled:
    """Counts, by control word with a name, the texts that spell it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.held = dict.fromkeys(named_words(tokenizer), 0)

    def by_documents(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yields the documents that were counted."""
        for document in documents:
            self._count(document.text)
            yield document

    def by_samples(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yields the samples that were counted."""
        for sample in samples:
            self._count(sample.words())
            yield sample

    def counts(self) -> dict[str, int]:
        """Returns the counts, without words that none spells."""
        return {word: count for word, count in self.held.items() if count}

    def _count(self, text: str) -> None:
        for word in self.held:
            if word in text:
                self.held[word] += 1


def _reads(
    gathered: Gathered, rows: Mapping[str, int], words: Mapping[str, int], pages: Mapping[str, int]
) -> tuple[FileRead, ...]:
    """Returns what came out of each file, sorted; files inside of an archive are files of their own."""
    told = (*gathered.bad, *gathered.parts, *gathered.empty)
    names = dict.fromkeys(sorted({*gathered.files, *words, *(one.file for one in told)}))
    return tuple(FileRead(name, rows.get(name, 0), words.get(name, 0), pages.get(name, 0)) for name in names)
