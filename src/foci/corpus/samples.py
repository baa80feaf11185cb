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
    """Returns the text of every token; for one without text, what it is decoded to; for a control token, its name."""
    pairs = zip(row.input_ids, row.offsets, strict=True)
    return [row.text[a:b] if b > a else _decoded(i, tokenizer) for i, (a, b) in pairs]


def _decoded(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the text of a token alone; pieces of SentencePiece keep the space before a word."""
    name = str(tokenizer.convert_ids_to_tokens(token))
    if token in tokenizer.added_tokens_decoder:
        return name
    space = " " if name.startswith("▁") else ""
    return space + str(tokenizer.decode([token])).removeprefix(space) or name
