"""Documents on their way from files to rows: the last few in memory, all others in a file without a name."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from foci.corpus.conversations.samples import Completion, Conversation, TokenIds
from foci.corpus.documents import Document, Sample
from foci.corpus.seen import Seen, key_of
from foci.corpus.split import Span, union
from foci.system.scratch import Scratch

MEMORY = 2**25
"""Bytes of documents that stay in memory, about: 32 MiB."""
PAGES = ("page ", "slide ")
"""How the places of a document begin that are pages."""
LONG = 2**20
"""Characters of a text from which its words are counted one by one."""
_BLOCK = 2**20
_ROUND = 1024
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Completion, Conversation, TokenIds)}

Item = TypeVar("Item")


class Spool(Generic[Item]):
    """Keeps things in order and gives them back once: as JSON lines in a file of TMPDIR where they are many."""

    def __init__(self, dump: Callable[[Item], Any], load: Callable[[Any], Item]) -> None:
        self._dump, self._load = dump, load
        self._waiting: list[Item] = []
        self._size = self._count = 0
        self._file: Scratch | None = None
        self._places: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._count

    def add(self, item: Item, size: int) -> None:
        """Takes a thing of about `size` bytes."""
        if self._waiting and self._size + size > MEMORY:
            self._write()
        self._waiting.append(item)
        self._size += size
        self._count += 1

    def _write(self) -> None:
        """Moves what is in memory to the file: lines, in blocks of about `_BLOCK` bytes."""
        self._file = self._file or Scratch()
        block = bytearray()
        for one in self._waiting:
            line = json.dumps(self._dump(one), ensure_ascii=False, default=str)
            block += line.encode("utf-8", "surrogatepass") + b"\n"
            if len(block) >= _BLOCK or one is self._waiting[-1]:
                self._places.append((self._file.append(block), len(block)))
                block = bytearray()
        self._waiting, self._size = [], 0

    def __iter__(self) -> Iterator[Item]:
        for begin, size in self._places:
            assert self._file is not None
            for line in self._file.read(begin, size).splitlines():
                yield self._load(json.loads(line.decode("utf-8", "surrogatepass")))
        yield from self._waiting


class Documents:
    """The documents of a corpus, each text once, in the order of their first sight; they have the spans of all.

    `given` counts all that were added, `words` and `pages` count what they hold, by file.
    """

    def __init__(self) -> None:
        self.given = 0
        self.words: Counter[str] = Counter()
        self.pages: Counter[str] = Counter()
        self._spool: Spool[Document] = Spool(_of_document, _document)
        self._seen = Seen()
        self._spans: dict[int, Mapping[str, tuple[Span, ...]]] = {}
        self._new: list[Document] = []
        self._size = 0

    def add(self, document: Document) -> None:
        """Takes a document."""
        self.given += 1
        self.words[document.file] += words_in(document.text)
        if document.places:
            self.pages[document.file] += len({name for _, name in document.places if name.startswith(PAGES)})
        self._new.append(document)
        self._size += len(document.text)
        if len(self._new) == _ROUND or self._size > LONG:
            self._sort_out()

    def __len__(self) -> int:
        self._sort_out()
        return len(self._spool)

    def __iter__(self) -> Iterator[Document]:
        self._sort_out()
        for number, document in enumerate(self._spool):
            more = self._spans.get(number)
            yield document if more is None else replace(document, spans=_joined(document.spans, more))

    def _sort_out(self) -> None:
        """Keeps of the newest documents those whose text is new, and the spans of the others."""
        numbers = self._seen.numbered([key_of(document.text) for document in self._new])
        for document, (number, is_first) in zip(self._new, numbers, strict=True):
            if is_first:
                marks = sum(map(len, document.spans.values())) + len(document.places)
                self._spool.add(document, len(document.text) + 500 + 100 * marks)
            elif document.spans:
                self._spans[number] = _joined(self._spans.get(number, {}), document.spans)
        self._new, self._size = [], 0


class Samples:
    """The samples of a corpus in order; `words` counts their words by file."""

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()
        self._spool: Spool[Sample] = Spool(_of_sample, _sample)

    def add(self, sample: Sample) -> None:
        """Takes a sample."""
        words = sample.words()
        self.words[sample.file] += words_in(words)
        self._spool.add(sample, 2 * len(words) + 2000)

    def __len__(self) -> int:
        return len(self._spool)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._spool)


def words_in(text: str) -> int:
    """Returns the number of words of a text, parted by white space."""
    return len(text.split()) if len(text) < LONG else sum(1 for _ in re.finditer(r"\S+", text))


def _joined(one: Mapping[str, Sequence[Span]], other: Mapping[str, Sequence[Span]]) -> dict[str, tuple[Span, ...]]:
    """Returns the spans of two documents of the same text."""
    return {name: union(one.get(name, ()), other.get(name, ())) for name in dict.fromkeys((*one, *other))}


def _of_document(one: Document) -> list[Any]:
    return [one.text, one.file, one.line, one.spans, one.whole_file, one.places]


def _document(kept: list[Any]) -> Document:
    text, file, line, spans, whole, places = kept
    marks = {name: tuple(map(tuple, some)) for name, some in spans.items()}
    return Document(text, file, line, marks, whole, tuple(map(tuple, places)))


def _of_sample(one: Sample) -> list[Any]:
    return [type(one).__name__, vars(one)]


def _sample(kept: list[Any]) -> Sample:
    name, fields = kept
    made: Sample = _KINDS[name](
        **{k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
    )
    return made
