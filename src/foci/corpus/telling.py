"""Says in lines for people what a corpus holds and what was left out of it."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from foci.corpus import Corpus, CorpusError
from foci.corpus.documents import BadLine
from foci.corpus.gathering import FileRead
from foci.focus import UNWEIGHTED, Row
from foci.system.harmless import one_line
from foci.system.words import counted

NAMED = 3
"""Names in a line, at most."""
LISTED = 20
"""Bad lines that are listed, at most."""


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


def rows_told(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, width: int = 80, count: int = NAMED
) -> Iterator[str]:
    """Yields a few rows, from the first to the last, as the model will read them: special tokens are written out.

    Lines are at most `width` characters wide. Where parts of a row are not learned, its learned lines begin with ">".
    """
    count = min(count, len(rows))
    chosen = sorted({round(n * (len(rows) - 1) / max(count - 1, 1)) for n in range(count)})
    marks = any(UNWEIGHTED in rows[n].columns for n in chosen)
    learned = "; lines with > are learned, the others are context only" if marks else ""
    yield f"{len(chosen)} of {counted(len(rows), 'row')}, as the model will read{learned}:"
    for n in chosen:
        yield f"{one_line(rows[n].source or rows[n].row_id)}:"
        for is_learned, text in _stretches(rows[n], tokenizer):
            mark = "> " if is_learned and UNWEIGHTED in rows[n].columns else "  "
            for line in text.split("\n"):
                yield from (f"  {mark}{part}".rstrip() for part in _wrapped(line, width - 4))


def _stretches(row: Row, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[bool, str]]:
    """Yields the parts of a row that are learned and not learned, in turn, each with its text."""
    unweighted = row.columns.get(UNWEIGHTED, (0.0,) * len(row))
    begun = 0
    for n in range(1, len(row) + 1):
        if n < len(row) and unweighted[n] == unweighted[begun]:
            continue
        before, text = tokenizer.decode(row.input_ids[:begun]), tokenizer.decode(row.input_ids[:n])
        text = text[len(before) :] if text.startswith(before) else tokenizer.decode(row.input_ids[begun:n])
        shown = text.removesuffix("\n").removeprefix("\n" if begun else "")
        if shown:
            yield not unweighted[begun], shown
        begun = n


def _wrapped(line: str, width: int) -> list[str]:
    """Returns a line in parts of at most `width` characters, cut between words where it can be."""
    if len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, drop_whitespace=True, break_on_hyphens=False) or [""]


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
    yield from corpus.notes
    if corpus.skipped:
        yield f"{counted(len(corpus.skipped), 'file')} of unknown kind left out: {named(corpus.skipped)}"
    holders = {str(parent) for read in corpus.reads if read.words for parent in Path(read.file).parents}
    if empty := [one for one in corpus.empty if str(Path(one.file)) not in holders]:  # an archive has text in it
        places = [one.file if one.line == 1 else f"{one.file}:{one.line}" for one in empty]
        yield f"{len(empty):,} without text left out: {named(places)}"
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
