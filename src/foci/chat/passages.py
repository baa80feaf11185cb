"""Finds the passage of a run's corpus that is nearest to a question, by BM25 (bm25s), and says where it stands."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foci.config.run import Run
from foci.corpus.documents import files_below, readable
from foci.corpus.sentences import sentences
from foci.corpus.store import read_sources
from foci.system.files import read_json
from foci.system.inputs import differences, noted

_MARKS = r"\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0900-\u0dff"
"""Marks that belong to the letter before them, and the letters of Indic scripts, whose vowels are such marks."""
_WORD = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    rf"|[^\W_\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff](?:[^\W_\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|[{_MARKS}])*"
)
"""A word, or a letter of a script that writes no spaces between words."""
SHOWN = 300
"""Characters of a passage that are shown, about."""


@dataclass(frozen=True)
class Passage:
    """A row of the corpus: its text, the sentences of it that are shown, and where it stands (file, page or line)."""

    text: str
    shown: str
    source: str


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, one-letter words too: "grade C" is not "grade D".

    >>> words_of("Grade C, of pump_7")
    ['grade', 'c', 'of', 'pump', '7']

    A letter with its mark apart (u and two dots) is the same word as with both in one.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Passages:
    """The rows of a run, ranked by BM25. The ranking is made at the first question, after its answers."""

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self.rows = [(source, text) for source, text in rows if words_of(text)]
        self._index: Any = None
        self._rows_with = Counter[str]()

    def nearest(self, question: str) -> Passage | None:
        """Returns the passage with the highest BM25 score; None where none has a word of the question."""
        words = sorted(set(words_of(question)))
        if not words or not self.rows:
            return None
        import bm25s  # noqa: PLC0415 - a quarter of a second, which the first answer need not wait for

        if self._index is None:
            self._index = bm25s.BM25()
            said = [words_of(text) for _, text in self.rows]
            self._index.index(said, show_progress=False)
            self._rows_with = Counter(word for some in said for word in set(some))
        found = self._index.retrieve([words], k=1, show_progress=False)
        if not float(found.scores[0, 0]) > 0:
            return None
        source, text = self.rows[int(found.documents[0, 0])]
        return Passage(text, excerpt(text, {word: self._rows_with[word] for word in words}), source)


def excerpt(text: str, words: Mapping[str, int]) -> str:
    """Returns whole sentences of a text from the one with the most of the words on, about `SHOWN` characters.

    `words`: of each, in how many rows it stands. A rare word counts more, here and in the rest of the corpus.

    >>> excerpt("The pump is red. It was built in 1994. It is in the hall.", {"built": 1, "in": 9, "the": 9, "is": 9})
    '... It was built in 1994. It is in the hall.'
    """
    if len(text) <= SHOWN and len(list(sentences(text))) < 2:
        return text.strip()
    spans = list(sentences(text)) or [(0, len(text))]
    said = [set(words_of(text[start:end])) & words.keys() for start, end in spans]
    here = Counter(word for some in said for word in some)
    best = max(range(len(spans)), key=lambda n: sum(1 / (here[word] * max(1, words[word])) for word in said[n]))
    begin, end = spans[best]
    for _, after in spans[best + 1 :]:
        if after - begin > SHOWN:
            break
        end = after
    cut = text[begin:end].strip()
    if len(cut) > 2 * SHOWN:
        cut = f"{cut[: 2 * SHOWN].rstrip()} ..."
    return f"... {cut}" if begin and text[:begin].strip() else cut


def read_passages(folder: Path) -> Passages:
    """Returns the passages that a run read, with those held out and those of the runs that it goes on from, each once.

    The corpus itself need not be there any more.

    Raises ValueError for a file that is damaged, and for a run without rows.
    """
    files = [folder / name for name in ("rows.parquet", "held_out.parquet", "earlier/rows.parquet")]
    rows = list(dict.fromkeys(row for file in files if file.is_file() for row in read_sources(file)))
    if not rows:
        raise ValueError(f"run {folder} has no rows (rows.parquet), so no passage can be named; put the file back")
    return Passages(rows)


def corpus_changes(folder: Path, run: Run) -> str:
    """Says how the corpus differs from what the run read; "" where it is as it was, or the run noted no files."""
    begun = (read_json(folder / "start.json") or {}).get("inputs")
    if not begun:
        return ""
    own = set(map(Path, run.corpus.path))
    files = [file for path in own if path.exists() for file in (files_below(path) if path.is_dir() else [path])]
    now = noted(filter(readable, files))
    gone = {name for name in begun if own & {Path(name), *Path(name).parents} and not Path(name).exists()}
    changes = differences({name: begun[name] for name in begun if name in now or name in gone}, now)
    return changes and f"the corpus is not as the run read it ({changes}); passages are those that it read"
