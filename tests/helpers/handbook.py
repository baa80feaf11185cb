"""A company's handbook: twenty short pages of Markdown in the folder of this name, about a firm that does not exist."""

from pathlib import Path

import tiny
from foci.corpus import read_corpus
from foci.focus import Row

FOLDER = Path(__file__).with_suffix("")


def rows(max_length: int = 512) -> list[Row]:
    """The handbook as a tiny model reads it."""
    return list(read_corpus(FOLDER, tiny.tokenizer(), max_length=max_length).rows)
