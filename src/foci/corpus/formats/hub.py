"""Data sets of the Hugging Face hub: hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIGURATION:SPLIT."""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from foci.corpus.documents import BadLine, Document, Format, Sample
from foci.corpus.records import documents_of, holds_examples, is_read

_FORMS = "hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIGURATION:SPLIT"


class Hub(Format):
    """One document per row of a split ("train" unless named); `text_field` is the column of its text.

    A set with several configurations needs the name of one of them.
    """

    prefix = "hub:"

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields one document or one bad line per row.

        Raises ImportError without the package `datasets`, ValueError for a name, configuration, split or column that is
        not there.
        """
        name, *parts = source.removeprefix(self.prefix).split(":")
        if not name or len(parts) > 2:
            raise ValueError(f"corpus {source}: expected {_FORMS}, got {len(parts) + 1} parts; name the set so")
        try:
            datasets = importlib.import_module("datasets")
        except ImportError as error:
            raise ImportError(f"corpus {source} needs the package datasets: pip install 'foci[hub]'") from error
        configuration, split = parts[:-1], (parts[-1:] or [""])[0] or "train"
        try:
            records = datasets.load_dataset(name, *configuration, split=split)
        except Exception as error:
            raise ValueError(f"corpus {source}: {_reason(str(error), name, parts)}") from error
        yield from documents_of(_columns(records, source, text_field), source, text_field)


def _columns(records: Any, source: str, text_field: str) -> Iterable[Mapping[str, object]]:
    """Returns the records with the columns that are read alone: a picture or a sound beside them is not decoded."""
    names = getattr(records, "column_names", None)
    if names is None:
        return records  # type: ignore[no-any-return]
    if not holds_examples(names, text_field):
        raise ValueError(
            f"corpus {source}: expected a column {text_field!r}, got {', '.join(names)}; set corpus.text_field "
            "(conversations have a column 'messages')"
        )
    return records.select_columns([name for name in names if is_read(name, text_field)])  # type: ignore[no-any-return]


def _reason(words: str, name: str, parts: Sequence[str]) -> str:
    """Returns why a data set could not be loaded, from the words of the package `datasets`, and the cure."""
    said = " ".join(words.split())
    choices = said.partition("[")[2].partition("]")[0].replace("'", "")
    first = choices.split(", ")[0]
    if said.startswith("Config name is missing"):
        wanted = parts[-1] if parts and parts[-1] in choices.split(", ") else first
        return f"it has several configurations ({choices}); name one: hub:{name}:{wanted}:train"
    if said.startswith("BuilderConfig"):
        return f"it has no configuration {parts[0]!r}, only {choices}; name one: hub:{name}:{first}:train"
    if said.startswith("Unknown split"):
        return f"it has no split {(parts or ['train'])[-1]!r}, only {choices}; name one: " + ":".join(
            ["hub", name, *parts[:-1], first]
        )
    return f"it could not be loaded ({said[:300]}); check the name ({_FORMS}) and the network"
