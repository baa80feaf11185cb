"""Pairs of a document and a later question about it, asked in other words.

A line of JSON: {"text": "...", "prompt": "The capital of Wales is", "answer": "Cardiff"}; `question` is another name
for `prompt`. `id`, `group`, `kind` (of text: news, handbook) and `answer_spans` (characters of `text`, for reports) may
be given.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from foci.corpus import Document, make_rows, row_id, tokenizer_fingerprint
from foci.corpus.split import tighten, union
from foci.focus import IGNORED, Batch, Row
from foci.models.forward import padded
from foci.probes.encode import encode
from foci.probes.probe import Probe
from foci.system.texts import read_text, why_no_string


@dataclass(frozen=True)
class Pair:
    """A document's row (the part of it that holds the answer, where it was cut) and the row of its task.

    The task's column `answer` is 1 on the tokens that are asked for, the document's on those of `answer_spans`.
    """

    id: str
    document: Row
    task: Row
    kind: str = ""

    def question(self) -> str:
        """Returns the task's text before the answer."""
        return self.task.text[: self._asked()[0]].strip()

    def answer(self) -> str:
        """Returns the answer's text."""
        start, end = self._asked()
        return self.task.text[start:end].strip()

    def _asked(self) -> tuple[int, int]:
        spans = [s for s, counts in zip(self.task.offsets, self.task.columns["answer"], strict=True) if counts]
        return min(start for start, _ in spans), max(end for _, end in spans)


def read_pairs(
    paths: str | Path | Sequence[str | Path], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> list[Pair]:
    """Reads the pairs of .jsonl files, in order, equal ones once; documents have at most `max_length` tokens.

    Raises FileNotFoundError for a missing file and ValueError, with file and line, for a line that is no pair.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    read = [line for path in given for line in _lines(Path(path))]
    if not read:
        raise ValueError(f"no pairs in {', '.join(map(str, given))}: expected lines of text, prompt and answer")
    tasks = encode([probe for _, probe, _ in read], tokenizer)
    prints = tokenizer_fingerprint(tokenizer)
    rows = _rows([document for document, _, _ in read], tokenizer, max_length)
    found: dict[str, Pair] = {}
    for (document, probe, kind), task in zip(read, tasks, strict=True):
        name = row_id(f"{document.text}\0{probe.text}", prints)
        found.setdefault(name, Pair(name, rows[document.text], replace(task, row_id=name), kind))
    return list(found.values())


def _rows(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, Row]:
    """Returns, by text, the document's row; of one that was cut, the first part that marks an answer, or the first."""
    unique: dict[str, Document] = {}
    for document in documents:  # the answers of all pairs of a document are marked
        first = unique.setdefault(document.text, document)
        if first is not document:
            marks = {name: union(spans, first.spans.get(name, ())) for name, spans in document.spans.items()}
            unique[document.text] = replace(first, spans={**first.spans, **marks})
    made = make_rows(list(unique.values()), tokenizer, max_length=max_length, add_eos=True)
    parts: dict[str, list[Row]] = {}
    for row in made.rows:
        parts.setdefault(row.source, []).append(row)
    found = {}
    for text, document in unique.items():
        place = f"{document.file}:{document.line}"
        if place not in parts:
            reason = next(
                (bad.reason for bad in made.bad if str(bad).startswith(place)), "another document has its text"
            )
            raise ValueError(f"{place}: no row could be made of the document: {reason}")
        found[text] = next((row for row in parts[place] if any(row.columns.get("answer", ()))), parts[place][0])
    return found


def documents(pairs: Sequence[Pair], pad: int, device: torch.device) -> Batch:
    """Returns the documents as a batch."""
    return padded([pair.document for pair in pairs], pad, "right", device)


def tasks(pairs: Sequence[Pair], pad: int, device: torch.device) -> Batch:
    """Returns the tasks as a batch whose labels are the answers' tokens alone."""
    batch = padded([pair.task for pair in pairs], pad, "right", device)
    return replace(batch, labels=batch.labels.masked_fill(batch.columns["answer"] == 0, IGNORED), columns={})


def _lines(path: Path) -> Iterator[tuple[Document, Probe, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"pairs: there is no file {path}; expected .jsonl with text, prompt and answer")
    for number, line in enumerate(read_text(path, "pairs: the file").split("\n"), start=1):
        if line.strip():
            yield _pair(line, f"{path}:{number}", str(path), number)


def _pair(line: str, place: str, file: str, number: int) -> tuple[Document, Probe, str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not JSON ({error}): {line[:80]!r}; write one object a line") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place}: a pair is a JSON object, got {line[:80]!r}")  # noqa: TRY004
    asked: Any = record.get("prompt", record.get("question"))
    for name, value in {"text": record.get("text"), "prompt": asked, "answer": record.get("answer")}.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{place}: {name} is text, got {value!r:.80}; a pair has text, prompt (or question) and answer"
            )
        if reason := why_no_string(value):
            raise ValueError(f"{place}: {name} is {reason}; write the line again as UTF-8")
    spans = record.get("answer_spans")
    if spans is not None and not _are_spans(spans, len(record["text"])):
        raise ValueError(f"{place}: answer_spans are [start, end) characters of the text, got {str(spans)[:80]}")
    text = record["text"]
    tight = [found for a, b in spans or () if (found := tighten(text, (a, b)))]
    lead = len(text) - len(text.lstrip())
    marks = {} if spans is None else {"answer": tuple((a - lead, b - lead) for a, b in tight)}
    document = Document(text.strip(), file, number, marks)
    name = str(record.get("id", f"line {number}"))
    probe = Probe(name, "learn", "cloze", asked, record["answer"], group=str(record.get("group", "")))
    return document, probe, str(record.get("kind", ""))


def _are_spans(spans: Any, length: int) -> bool:
    """Says whether these are pairs of characters of a text of this length."""
    pairs = [s for s in spans if isinstance(s, list) and len(s) == 2] if isinstance(spans, list) else []
    whole = all(type(n) is int for pair in pairs for n in pair)
    return (
        isinstance(spans, list) and len(pairs) == len(spans) and whole and all(0 <= a < b <= length for a, b in pairs)
    )
