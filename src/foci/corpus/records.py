"""Records (JSON objects, rows of tables) to documents, with the characters that they mark, or to other examples."""

from collections.abc import Iterable, Iterator, Mapping

from foci.corpus.conversations.samples import Unusable
from foci.corpus.conversations.shapes import KEYS, SHAPES, sample_of
from foci.corpus.documents import BadLine, Document, Empty, Sample, excerpt
from foci.corpus.split import Span, tighten, union
from foci.focus import DELIMITER, ENTROPY, LOSS_WEIGHT, REHEARSED, UNWEIGHTED
from foci.system.texts import why_no_string

SPANS, GROUPS = "_spans", "_groups"
"""Endings of the keys that mark characters, and of those that name a group for each of these marks."""
OWN = frozenset({DELIMITER, ENTROPY, LOSS_WEIGHT, REHEARSED, UNWEIGHTED, "nll"})
"""Columns that foci makes itself: no record may mark them."""


def is_read(key: str, text_field: str) -> bool:
    """Whether a record's key is read at all: the text, marks, groups of marks, and the keys of conversations."""
    return key == text_field or key in KEYS or key.endswith((SPANS, GROUPS))


def holds_examples(names: Iterable[str], text_field: str) -> bool:
    """Whether a table with columns of these names has text, or all columns of another kind of example."""
    known = {*names}
    return text_field in known or any(known.issuperset(keys) for keys in SHAPES.values())


def is_sample(record: Mapping[str, object]) -> bool:
    """Whether a record is a conversation, a completion or a row of token ids."""
    return any(all(record.get(key) is not None for key in keys) for keys in SHAPES.values())


def documents_of(
    records: Iterable[Mapping[str, object]], file: str, text_field: str
) -> Iterator[Document | Sample | BadLine]:
    """Yields one document, or one bad line that says why there is none, per record; records are counted from 1."""
    for number, record in enumerate(records, start=1):
        yield document_of(record, file, number, text_field, shown(record, text_field))


def document_of(
    record: Mapping[str, object], file: str, line: int, text_field: str, seen: str = ""
) -> Document | Sample | BadLine:
    """Returns the example of a record, or a bad line with the reason why there is none; `seen` is its excerpt."""
    text = record.get(text_field)
    try:
        sample = sample_of(record, file, line, text_field)
    except Unusable as error:
        return BadLine(file, line, str(error), seen)
    if sample is not None:
        return sample
    if isinstance(text, str) and not text.strip():
        return Empty(file, line, f"field {text_field!r} is an empty text", seen)
    made = _document(record, file, line, text_field)
    return made if isinstance(made, Document) else BadLine(file, line, made, seen)


def shown(record: Mapping[str, object], text_field: str) -> str:
    """Returns the beginning of a record: of its text, or of all that is there."""
    text = record.get(text_field)
    return excerpt(str(text if text is not None else {k: v for k, v in record.items() if v is not None}))


def _document(record: Mapping[str, object], file: str, line: int, text_field: str) -> Document | str:
    if text_field not in record:
        fields = ", ".join(map(repr, record)) or "none"
        return f"no field {text_field!r} (the fields are {fields}; corpus.text_field says which one holds the text)"
    text = record[text_field]
    if not isinstance(text, str):
        return f"field {text_field!r} is not a string but {type(text).__name__}"
    if (reason := why_no_string(text)) is not None:
        return f"field {text_field!r} is {reason}"
    spans = _marks({key: value for key, value in record.items() if key != text_field}, text)
    if isinstance(spans, str):
        return spans
    lead = len(text) - len(text.lstrip())
    moved = {name: tuple((start - lead, end - lead) for start, end in some) for name, some in spans.items()}
    return Document(text.strip(), file, line, moved)


def _marks(record: Mapping[str, object], text: str) -> dict[str, tuple[Span, ...]] | str:
    """Returns the spans of every `NAME_spans` as NAME and of its groups as NAME:GROUP, or why they are refused."""
    found: dict[str, tuple[Span, ...]] = {}
    for key, given in record.items():
        name = key.removesuffix(SPANS)
        if given is None or name in (key, ""):
            continue
        if name in OWN:
            return f"{key}: {name!r} is a column of foci's own; give the key another name"
        spans = _spans(key, given, text)
        if isinstance(spans, str):
            return spans
        groups = _groups(f"{name}{GROUPS}", record.get(f"{name}{GROUPS}"), len(spans))
        if isinstance(groups, str):
            return groups
        found[name] = union(spans)
        for group in dict.fromkeys(groups):
            found[f"{name}:{group}"] = union([s for s, g in zip(spans, groups, strict=True) if g == group])
    return found


def _spans(key: str, given: object, text: str) -> list[Span] | str:
    """Returns spans without the white space at their edges, in their order, or why they are refused."""
    if not isinstance(given, list):
        return f"{key} is not a list of [start, end] but {type(given).__name__}"
    tight: list[Span] = []
    for pair in given:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(bound) is int for bound in pair)):
            return f"{key}: expected [start, end] as two whole numbers, got {pair!r}"[:200]
        start, end = pair
        if start < 0 or max(start, end) > len(text):
            return f"{key}: [{start}, {end}] is outside of the text (0 to {len(text)} characters)"
        span = tighten(text, (start, end))
        if span is None:
            return f"{key}: [{start}, {end}] is empty (end is exclusive)"
        tight.append(span)
    return tight


def _groups(key: str, given: object, count: int) -> list[str] | str:
    """Returns the group of every span, none where none are given, or why they are refused."""
    if given is None:
        return []
    if not isinstance(given, list) or len(given) != count or not all(isinstance(group, str) for group in given):
        return f"{key}: expected a list of {count} strings, one for each span, got {given!r}"[:200]
    return given
