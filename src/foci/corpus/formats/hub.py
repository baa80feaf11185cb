"""Data sets of the Hugging Face hub: hub:NAME or hub:NAME:SPLIT, one record with a text per row."""

import importlib
from collections.abc import Iterator

from foci.corpus.documents import BadLine, Document, Format
from foci.corpus.records import documents_of


class Hub(Format):
    """One document per row of a split ("train" unless named); `text_field` is the column of its text."""

    prefix = "hub:"

    def read(self, source: str, text_field: str) -> Iterator[Document | BadLine]:
        """Yields one document or one bad line per row. Raises ImportError without the package `datasets`."""
        name, _, split = source.removeprefix(self.prefix).partition(":")
        try:
            datasets = importlib.import_module("datasets")
        except ImportError as error:
            raise ImportError(f"corpus {source} needs the package datasets: pip install 'foci[hub]'") from error
        yield from documents_of(datasets.load_dataset(name, split=split or "train"), source, text_field)
