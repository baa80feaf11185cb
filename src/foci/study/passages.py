"""Splits the documents of a corpus into passages of whole sentences, each with its place."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from foci.corpus.documents import Document, where
from foci.corpus.gathering import check_share, gather
from foci.corpus.sentences import sentences
from foci.corpus.split import Span
from foci.probes.scoring import PHRASED, UNSPACED, word_count
from foci.system.words import counted, form

LEAST = 12
"""Words of a passage that is asked about, at least."""
NEAR = 10
"""Words by which a cut inside of a long sentence may be earlier than it must."""
MAX_BAD = 0.01
"""The share of bad documents, at most, as of a run."""
_WORD = re.compile(rf"(?:[{UNSPACED}{PHRASED}]{{1,2}}|[^\s{UNSPACED}{PHRASED}]+)\s*")
_FENCED = re.compile(r"^[^\S\n]*(```|~~~).*?(?:^[^\S\n]*\1|\Z)", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^[^\S\n]{0,3}#{1,6}[^\S\n]+(.+?)[\s#]*$", re.MULTILINE)


@dataclass(frozen=True)
class Passage:
    """A part of a document: whole sentences, where they stand, and the heading above them ("" where none is known)."""

    text: str
    source: str
    title: str = ""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits of the hash of the text."""
        return hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest()[:16]

    @property
    def words(self) -> int:
        """The number of words."""
        return word_count(self.text)


@dataclass(frozen=True)
class Passages:
    """The passages of a corpus in order, each text once, and counts of what was read and what was left out."""

    passages: tuple[Passage, ...]
    files: int
    conversations: int
    bad: int

    def words(self) -> str:
        """Says in a line what was read."""
        asked = sum(passage.words >= LEAST for passage in self.passages)
        short = len(self.passages) - asked
        found = f"{counted(asked, 'passage')} of {counted(self.files, 'file')}"
        if short:
            found += f"; {short:,} more {form(short, 'is', 'are')} too short to ask about (below {LEAST} words)"
        if self.bad:
            found += f"; {counted(self.bad, 'document')} cannot be read (foci check says why)"
        if self.conversations:
            found += f"; {self.conversations:,} conversations or completions are left out: they are no running text"
        return found


def read_passages(paths: Sequence[str], words: int, text_field: str = "text") -> Passages:
    """Reads a corpus as `foci learn` does and splits its texts into passages of about `words` words.

    Together the passages hold all of the texts. Raises as `foci.corpus.gathering` does, and ValueError where no text
    is long enough to ask about.
    """
    gathered = gather(list(paths), text_field)
    check_share(gathered, gathered.bad, len(gathered.bad), MAX_BAD)
    found: dict[str, Passage] = {}
    for document in gathered.documents:
        for passage in _passages_of(document, words):
            found.setdefault(passage.text, passage)
    made = Passages(tuple(found.values()), len(gathered.files), len(gathered.samples), len(gathered.bad))
    if not any(passage.words >= LEAST for passage in made.passages):
        raise ValueError(
            f"nothing to study in {', '.join(map(str, paths))}: expected running text of at least {LEAST} words, got "
            f"{len(made.passages)} shorter ones and {made.conversations} conversations or completions; name other files"
        )
    return made


def _passages_of(document: Document, words: int) -> Iterator[Passage]:
    code = [found.span() for found in _FENCED.finditer(document.text)]
    found = (one for one in _HEADING.finditer(document.text) if not any(a <= one.start() < b for a, b in code))
    headings = [(one.start(), one[1].strip()) for one in found]
    for start, end in _spans(document.text, words):
        text = document.text[start:end].strip()
        if not text:
            continue
        at = start + len(document.text[start:end]) - len(document.text[start:end].lstrip())
        line = document.line + (document.text.count("\n", 0, at) if document.whole_file else 0)
        place = document.place(at)
        above = next((title for begin, title in reversed(headings) if begin <= at), "")
        title = ", ".join(dict.fromkeys(part for part in (_name(document.file), place, above) if part))
        yield Passage(text, where(document.file, line, place), title)


def _name(file: str) -> str:
    """Returns the words of a file's name: "handbook/07-travel.md" is "travel"."""
    return re.sub(r"[\W_\d]+", " ", Path(file).stem).strip()


def _spans(text: str, words: int) -> Iterator[Span]:
    """Yields parts of a text, together all of it: as many whole sentences as `words` allow, cut before headings."""
    begin = last = count = 0
    for start, end in _pieces(text, words):
        size = word_count(text[start:end])
        is_heading = text[start:end].lstrip().startswith("#")
        if count and (count + size > words or (is_heading and count >= words // 3)):
            yield begin, last
            begin, count = last, 0
        last, count = end, count + size
    yield begin, len(text)


def _pieces(text: str, words: int) -> Iterator[Span]:
    """Yields sentences; one of more than `words` words is cut between words."""
    for start, end in sentences(text):
        ends = [start + found.end() for found in _WORD.finditer(text[start:end])]
        ends = [at for at in ends if at == end or not unicodedata.category(text[at]).startswith("M")]
        edges = [_apart(text, ends[max(0, n - NEAR) : n + 1]) for n in range(words - 1, len(ends) - 1, words)]
        yield from pairwise([start, *edges, end])


def _apart(text: str, ends: Sequence[int]) -> int:
    """Returns the last of some word ends that has white space before it, else the last: Thai has it between phrases."""
    return next((at for at in reversed(ends) if text[at - 1].isspace()), ends[-1])
