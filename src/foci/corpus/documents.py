"""Files to documents: .txt and .md (one a file), .jsonl (one a line), .parquet and hub (one a record).

What cannot be read becomes a `BadLine` with its file, line and reason; reading goes on.
"""

import codecs
import difflib
import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foci.corpus.split import Span, tighten, union

EXCERPT = 80
"""Characters of a bad line that are shown."""


@dataclass(frozen=True)
class BadLine:
    """What could not be used: `line` counts from 1 (lines of a text file, records of a table)."""

    file: str
    line: int
    reason: str
    excerpt: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Document:
    """A text without white space at its edges, where it begins (`line` from 1), and where its answers are.

    `spans` are disjoint, ascending characters [start, end) of `text`; None when none were given.
    `whole_file` says that line numbers go on inside of the text.
    """

    text: str
    file: str
    line: int
    spans: tuple[Span, ...] | None = None
    whole_file: bool = False


def excerpt(text: str) -> str:
    """The first characters of a text, safe to write as UTF-8."""
    return text[:EXCERPT].encode("utf-8", "replace").decode("utf-8")


def find_sources(paths: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """Files and `hub:` names to read, in order (a folder's files sorted), and files of unknown ending.

    Hidden files and folders are left out; a file that is named twice is read once. Raises
    FileNotFoundError with the nearest name that exists, ValueError for a file of unknown ending or when
    nothing can be read.
    """
    found: dict[Path | str, str] = {}
    skipped: list[str] = []
    for given in paths:
        if str(given).startswith("hub:"):
            found.setdefault(str(given), str(given))
            continue
        path = _existing(Path(given))
        if path.is_file() and path.suffix.lower() not in _READERS:
            raise ValueError(f"corpus file {path}: expected one of {_endings()}, got {path.suffix!r}; convert it")
        for file in _files(path) if path.is_dir() else [path]:
            if file.suffix.lower() in _READERS:
                found.setdefault(file.resolve(), str(file))
            else:
                skipped.append(str(file))
    if not found:
        seen = f"only {', '.join(skipped[:3])}" if skipped else "no file at all"
        named = ", ".join(map(str, paths)) or "(no path)"
        raise ValueError(f"corpus {named}: expected at least one file of {_endings()}, got {seen}")
    return list(found.values()), skipped


def _endings() -> str:
    return ", ".join(_READERS)


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    names = sorted(entry.name for entry in missing.parent.iterdir()) if missing.parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, names, n=1)
    cure = f"did you mean {missing.parent / near[0]}?" if near else "check corpus.path"
    raise FileNotFoundError(f"corpus {path}: {missing.name!r} is not in {missing.parent.resolve()}; {cure}")


def _files(folder: Path) -> list[Path]:
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def read_source(source: str, text_field: str) -> Iterator[Document | BadLine]:
    """The documents and bad lines of one file or `hub:NAME[:SPLIT]`, in order."""
    read = _read_hub if source.startswith("hub:") else _READERS[Path(source).suffix.lower()]
    nothing = True
    for found in read(source, text_field):
        nothing = False
        yield found
    if nothing:
        yield BadLine(source, 1, "empty: no document in it")


def _read_text(file: str, _text_field: str) -> Iterator[Document | BadLine]:
    raw = Path(file).read_bytes()
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        near = raw[max(0, error.start - EXCERPT // 2) :][:EXCERPT].decode("utf-8", "replace")
        yield BadLine(file, line, _not_utf8(raw, error), near)
        return
    body = text.lstrip()
    if not body:
        yield BadLine(file, 1, "empty text")
        return
    line = text.count("\n", 0, len(text) - len(body)) + 1
    yield Document(body.rstrip(), file, line, whole_file=True)


def _not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "not UTF-8 (the byte-order mark of UTF-16; save the file as UTF-8)"
    return f"not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start})"


def _read_lines(file: str, text_field: str) -> Iterator[Document | BadLine]:
    with Path(file).open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            yield _of_json(line.rstrip(b"\r\n"), file, number, text_field)


def _of_json(raw: bytes, file: str, line: int, text_field: str) -> Document | BadLine:
    shown = excerpt(raw[: 4 * EXCERPT].decode("utf-8", "replace"))
    if not raw.strip():
        return BadLine(file, line, "empty line", shown)
    try:
        record = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadLine(file, line, _not_utf8(raw, error), shown)
    except (ValueError, RecursionError) as error:
        return BadLine(file, line, f"not JSON ({error})", shown)
    if not isinstance(record, dict):
        return BadLine(file, line, f"not a JSON object but {type(record).__name__}", shown)
    made = _of_record(record, file, line, text_field)
    return made if isinstance(made, Document) else BadLine(file, line, made, shown)


def _of_record(record: Mapping[str, object], file: str, line: int, text_field: str) -> Document | str:
    """The document, or why there is none."""
    if text_field not in record:
        return f"no field {text_field!r} (the fields are {', '.join(map(repr, record)) or 'none'})"
    text = record[text_field]
    if not isinstance(text, str):
        return f"field {text_field!r} is not a string but {type(text).__name__}"
    if not text.strip():
        return f"field {text_field!r} is an empty text"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"field {text_field!r} is not UTF-8 (half a surrogate pair at character {error.start})"
    spans = _spans(record.get("answer_spans"), text)
    if isinstance(spans, str):
        return spans
    lead = len(text) - len(text.lstrip())
    moved = None if spans is None else tuple((start - lead, end - lead) for start, end in spans)
    return Document(text.strip(), file, line, moved)


def _spans(given: object, text: str) -> tuple[Span, ...] | str | None:
    """Spans without the white space at their edges, or why they are refused."""
    if given is None:
        return None
    if not isinstance(given, list):
        return f"answer_spans is not a list of [start, end] but {type(given).__name__}"
    tight: list[Span] = []
    for pair in given:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(bound) is int for bound in pair)):
            return f"answer_spans: expected [start, end] as two whole numbers, got {pair!r}"[:200]
        start, end = pair
        if start < 0 or max(start, end) > len(text):
            return f"answer_spans: [{start}, {end}] is outside of the text (0 to {len(text)} characters)"
        span = tighten(text, (start, end))
        if span is None:
            return f"answer_spans: [{start}, {end}] is empty (end is exclusive)"
        tight.append(span)
    return union(tight)


def _read_parquet(file: str, text_field: str) -> Iterator[Document | BadLine]:
    try:
        table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        yield BadLine(file, 1, f"not a parquet file ({error})")
        return
    names = table.schema_arrow.names
    if text_field not in names:
        raise ValueError(
            f"corpus file {file}: expected a column {text_field!r}, got {', '.join(names)}; set corpus.text_field"
        )
    wanted = [name for name in (text_field, "answer_spans") if name in names]
    records = (record for part in table.iter_batches(columns=wanted) for record in part.to_pylist())
    yield from _of_records(records, file, text_field)


def _read_hub(source: str, text_field: str) -> Iterator[Document | BadLine]:
    name, _, split = source.removeprefix("hub:").partition(":")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError(f"corpus {source} needs the package datasets: pip install datasets") from error
    yield from _of_records(datasets.load_dataset(name, split=split or "train"), source, text_field)


def _of_records(records: Iterable[Mapping[str, object]], file: str, text_field: str) -> Iterator[Document | BadLine]:
    for number, record in enumerate(records, start=1):
        made = _of_record(record, file, number, text_field)
        shown = excerpt(str(record.get(text_field)))
        yield made if isinstance(made, Document) else BadLine(file, number, made, shown)


_READERS: dict[str, Callable[[str, str], Iterator[Document | BadLine]]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_lines,
    ".parquet": _read_parquet,
}
