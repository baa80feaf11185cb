"""Says in lines for people what a corpus holds and what was left out of it."""

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from foci.corpus import Corpus, CorpusError
from foci.corpus.documents import BadLine, one_line
from foci.corpus.gathering import FileRead
from foci.focus import Row

NAMED = 3
"""Names in a line, at most."""
LISTED = 20
"""Bad lines that are listed, at most."""


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun, in the plural where it is not 1.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def files_told(made: Corpus | CorpusError) -> Iterator[str]:
    """Yields a line for each file with its rows, words and pages, and below it what was left out of it, and why."""
    width = max((len(one_line(read.file)) for read in made.reads), default=0)
    yield f"{'file':<{width}}  {'rows':>7}  {'words':>9}  {'pages':>5}"
    held: dict[str, list[BadLine]] = {}
    for one in (*made.bad, *made.empty):
        held.setdefault(one.file, []).append(one)
    for read in made.reads:
        pages = f"{read.pages:>5,}" if read.pages else ""
        yield f"{one_line(read.file):<{width}}  {read.rows:>7,}  {read.words:>9,}  {pages}".rstrip()
        yield from listed(held.get(read.file, [_again(read)] if read.words and not read.rows else []))
    yield from (f"{one_line(name)}  not read: a file of unknown kind" for name in made.skipped)


def _again(read: FileRead) -> BadLine:
    return BadLine(read.file, 1, "the text of earlier files")


def rows_told(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, count: int = NAMED) -> Iterator[str]:
    """Yields a few rows, from the first to the last, as the model will read them: special tokens are written out."""
    chosen = sorted({round(n * (len(rows) - 1) / max(count - 1, 1)) for n in range(min(count, len(rows)))})
    yield f"{len(chosen)} of {counted(len(rows), 'row')}, as the model will read:"
    for n in chosen:
        yield f"{one_line(rows[n].source or rows[n].row_id)}:"
        yield from (f"  {line}" for line in tokenizer.decode(rows[n].input_ids).split("\n"))


def told(corpus: Corpus, *, listing: bool = True) -> Iterator[str]:
    """Yields a line on what was read, and those of `left_out`; `listing` also lists the bad lines."""
    yield (
        f"{counted(corpus.documents, 'document')} of {counted(corpus.files, 'file')}: "
        f"{counted(len(corpus.rows), 'row')}, {corpus.tokens:,} tokens"
    )
    yield from left_out(corpus, listing=listing)


def left_out(corpus: Corpus, where: str = "left out", *, listing: bool = True) -> Iterator[str]:
    """Yields a line on each kind of thing that was left out or read otherwise; `where` says where bad lines are.

    `listing` also lists the bad lines.
    """
    if corpus.skipped:
        yield f"{counted(len(corpus.skipped), 'file')} of unknown kind left out: {named(corpus.skipped)}"
    if corpus.empty:
        places = [one.file if one.line == 1 else f"{one.file}:{one.line}" for one in corpus.empty]
        yield f"{len(corpus.empty):,} without text left out: {named(places)}"
    if corpus.duplicates:
        yield f"{counted(corpus.duplicates, 'duplicate')} left out"
    if corpus.repeated:
        yield f"{counted(corpus.repeated, 'row')} with the text of an earlier row left out"
    for word, count in corpus.spelled.items():
        yield (
            f"{counted(count, 'document')} with the word {word}, a mark of this tokenizer: it is read as plain text, "
            "and foci itself puts the marks at the ends of a document"
        )
    if corpus.bad:
        yield f"{counted(len(corpus.bad), 'bad line')} {where}{':' if listing else ', named below their files'}"
        yield from listed(corpus.bad) if listing else ()


def named(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(one_line, names[:NAMED])) + more


def listed(bad: Sequence[BadLine]) -> Iterator[str]:
    """Yields a line for each of the first bad lines, and how many more there are."""
    yield from (f"  {one}" for one in bad[:LISTED])
    if len(bad) > LISTED:
        yield f"  and {len(bad) - LISTED:,} more"
