"""Says in lines for people what a corpus holds and what was left out of it."""

from collections.abc import Iterator, Sequence

from foci.corpus import Corpus
from foci.corpus.documents import BadLine

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


def told(corpus: Corpus) -> Iterator[str]:
    """Yields a line on what was read, and those of `left_out`."""
    yield (
        f"{counted(corpus.documents, 'document')} of {counted(corpus.files, 'file')}: "
        f"{counted(len(corpus.rows), 'row')}, {corpus.tokens:,} tokens"
    )
    yield from left_out(corpus)


def left_out(corpus: Corpus, where: str = "left out") -> Iterator[str]:
    """Yields a line on each kind of thing that was left out or read otherwise; `where` says where bad lines are."""
    if corpus.skipped:
        yield f"{counted(len(corpus.skipped), 'file')} of unknown kind left out: {named(corpus.skipped)}"
    if corpus.empty:
        places = [one.file if one.line == 1 else f"{one.file}:{one.line}" for one in corpus.empty]
        yield f"{len(corpus.empty):,} without text left out: {named(places)}"
    if corpus.duplicates:
        yield f"{counted(corpus.duplicates, 'duplicate')} left out"
    for word, count in corpus.spelled.items():
        yield (
            f"{counted(count, 'document')} with the word {word}, a mark of this tokenizer: it is read as plain text, "
            "and foci itself puts the marks at the ends of a document"
        )
    if corpus.bad:
        yield f"{counted(len(corpus.bad), 'bad line')} {where}:"
        yield from listed(corpus.bad)


def named(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def listed(bad: Sequence[BadLine]) -> Iterator[str]:
    """Yields a line for each of the first bad lines, and how many more there are."""
    yield from (f"  {one}" for one in bad[:LISTED])
    if len(bad) > LISTED:
        yield f"  and {len(bad) - LISTED:,} more"
