"""Chooses the few rows whose tokens a report shows."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from foci.focus import Row
from foci.seeds import generator

SAMPLES = 12
"""The number of rows whose tokens the report shows."""


def samples(rows: Sequence[Row], seed: int) -> list[Row]:
    """Returns a few rows for the report, the same in every arm."""
    order = generator(seed, "samples").permutation(len(rows))[:SAMPLES]
    return [rows[i] for i in sorted(order)]


def words_of(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns the text of every token; for a token without text, its name."""
    pairs = zip(row.input_ids, row.offsets, strict=True)
    return [row.text[a:b] if b > a else str(tokenizer.convert_ids_to_tokens(i)) for i, (a, b) in pairs]
