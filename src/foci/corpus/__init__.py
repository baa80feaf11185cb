"""Reads files into rows of tokens. A line that cannot be used is counted, and kept with the reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from foci.corpus.documents import BadLine, Document
from foci.corpus.gathering import CorpusError, FileRead, Gathered, check_share, gather
from foci.corpus.plain import named_words
from foci.corpus.rows import Made, make_rows
from foci.corpus.split import union
from foci.corpus.store import read_rows, write_quarantine, write_rows
from foci.corpus.tokens import row_id, tokenizer_fingerprint
from foci.focus import Row

PAGES = ("page ", "slide ")
"""How the places of a document begin that are pages."""

__all__ = [
    "BadLine",
    "Corpus",
    "CorpusError",
    "Document",
    "FileRead",
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
    read as text. `reads` says of each file what came out of it.
    """

    rows: tuple[Row, ...]
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

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, special ones included."""
        return sum(len(row) for row in self.rows)

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
) -> Corpus:
    """Reads files, folders and `hub:NAME[:SPLIT]` data sets into rows of at most `max_length` tokens.

    .txt and .md hold one document, .jsonl one per line, .parquet and the hub one per record, all UTF-8. A record's text
    stands in `text_field`. Every key that ends in `_spans` lists characters [start, end) of the text and becomes a
    column of the rows, 1 on the tokens of these characters: `answer_spans` the column "answer", `name_spans` "name". A
    key `answer_groups` beside it names a group for each span, and adds a column for each group ("answer:town").

    Rows begin as the tokenizer begins a text; the last row of a document alone ends as it ends one, and with its EOS
    token unless `add_eos` is False. Special tokens that are written out in a text are read as plain text.

    Raises FileNotFoundError for a missing path, CorpusError (a ValueError) when no row is left or a larger
    share than `max_bad` (0 to 1) of all documents is bad, ValueError for settings that cannot work.
    """
    if not 0 <= max_bad <= 1:
        raise ValueError(f"corpus.max_bad: expected a share from 0 to 1, got {max_bad}; 0.01 is 1 %")
    gathered = gather([paths] if isinstance(paths, str | Path) else list(paths), text_field)
    documents: dict[str, Document] = {}
    for read in gathered.documents:
        documents[read.text] = _joined(documents.get(read.text, read), read)
    made = make_rows(list(documents.values()), tokenizer, max_length=max_length, add_eos=add_eos)
    bad = (*gathered.bad, *gathered.parts, *made.bad)
    reads = _reads(gathered, made)
    check_share(gathered, bad, len(gathered.bad) + len(documents) - made.documents, max_bad, reads)
    duplicates = len(gathered.documents) - len(documents)
    counts = (len(gathered.files), made.documents, duplicates, made.split, made.repeated)
    held = {word: sum(word in text for text in documents) for word in named_words(tokenizer)}
    spelled = {word: count for word, count in held.items() if count}
    return Corpus(made.rows, bad, *counts, gathered.skipped, gathered.empty, spelled, reads)


def _joined(first: Document, second: Document) -> Document:
    """Returns the first of two documents of the same text, with the spans of both."""
    names = dict.fromkeys((*first.spans, *second.spans))
    return replace(first, spans={n: union(first.spans.get(n, ()), second.spans.get(n, ())) for n in names})


def _reads(gathered: Gathered, made: Made) -> tuple[FileRead, ...]:
    """Returns what came out of each file, sorted; files inside of an archive are files of their own."""
    words: Counter[str] = Counter()
    pages: Counter[str] = Counter()
    for document in gathered.documents:
        words[document.file] += len(document.text.split())
        pages[document.file] += len({name for _, name in document.places if name.startswith(PAGES)})
    told = (*gathered.bad, *gathered.parts, *gathered.empty)
    names = dict.fromkeys(sorted({*gathered.files, *words, *(one.file for one in told)}))
    return tuple(FileRead(name, made.by_file.get(name, 0), words[name], pages[name]) for name in names)
