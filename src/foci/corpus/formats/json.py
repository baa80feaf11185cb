"""JSON files: .json, a list of objects with a text, an object that holds such a list, or an object a line; UTF-8."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from foci.corpus.documents import BadLine, Document, Empty, Format, Sample, excerpt
from foci.corpus.formats.jsonl import read_lines
from foci.corpus.records import document_of, is_sample, shown
from foci.system.texts import NotText, decoded


class Json(Format):
    """One document per object, or per string, of a list; `text_field` is the key of an object's text."""

    endings = (".json",)
    whole = True

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields one document or one bad line per record, counted from 1. An object without texts is named as empty."""
        try:
            content = json.loads(decoded(Path(source).read_bytes()) or "null")
        except NotText as error:
            yield BadLine(source, 1, str(error))
            return
        except (ValueError, RecursionError) as error:
            if _is_lines(Path(source)):
                yield from read_lines(source, text_field)
            else:
                yield BadLine(source, 1, f"not JSON ({error})")
            return
        records = _records(content, text_field)
        if records is None:
            held = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
            seen = "nothing" if content in (None, {}) else excerpt(held)
            yield Empty(source, 1, f"no list of records and no field {text_field!r}, but {seen}")
            return
        for number, record in enumerate(records, start=1):
            made = {text_field: record} if isinstance(record, str) else record
            if isinstance(made, dict):
                yield document_of(made, source, number, text_field, shown(made, text_field))
            else:
                yield BadLine(source, number, f"not a JSON object but {type(record).__name__}", excerpt(str(record)))


def _records(content: object, text_field: str) -> list[object] | None:
    """Returns the records of a file: a list, the lists of objects with a text that an object holds, or itself.

    Without such lists the only list of objects, or the only value where that is a list of texts.
    """
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        return None
    if text_field in content or is_sample(content):
        return [content]
    values = list(content.values())
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    told = [value for value in lists if text_field in value[0] or is_sample(value[0])]
    if told or len(lists) == 1:
        return list(chain.from_iterable(told or lists))
    are_texts = len(values) == 1 and isinstance(values[0], list) and all(isinstance(one, str) for one in values[0])
    return values[0] if are_texts and values[0] else None


def _is_lines(path: Path) -> bool:
    """Returns whether the first line of a file is a JSON object by itself, as in .jsonl."""
    with path.open("rb") as handle:
        first = next((line for line in handle if line.strip()), b"")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False
