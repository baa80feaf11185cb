"""Tokenises texts as for training, and computes the hashes that name rows and tokenizers."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from foci.corpus.plain import encoded

_PRINTS: dict[bytes, str] = {}
"""Fingerprints, by the hash of what a backend writes itself as: that is seven times quicker than to sort it."""


def tokens(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, special: bool = True
) -> list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
    """Returns ids and character offsets [start, end) of every text, read as plain text (`foci.corpus.plain`).

    `special` adds the tokens that the tokenizer adds by itself.
    """
    return [(made.ids, made.offsets) for made in encoded(texts, tokenizer, special=special)]


def leading(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Returns the tokens that the tokenizer puts before every text by itself, such as BOS."""
    ((ids, offsets),) = tokens(["a"], tokenizer)
    return ids[: next(n for n, (start, end) in enumerate(offsets) if end > start)]


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Says whether a token and a span, both characters [start, end), share a character; the rule for marks in a text.

    A token that stands for no text, such as (0, 0), shares none. `foci.probes.scoring.marks` is stricter: a character
    that is not white space.

    >>> overlap((0, 3), (2, 5)), overlap((0, 3), (3, 5)), overlap((0, 0), (0, 5))
    (True, False, False)
    """
    return max(one[0], other[0]) < min(one[1], other[1])


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns 16 hex characters that identify a tokenizer's behaviour: a hash of its fast backend, not of its path.

    Padding and truncation, which a call may leave set, are not part of it. Raises ValueError for a slow
    tokenizer.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__}: expected a fast tokenizer (rows need character offsets), got a slow "
            "one; load it with AutoTokenizer or save it as tokenizer.json"
        )
    backend: Any = tokenizer
    written = backend.backend_tokenizer.to_str()
    key = hashlib.sha256(written.encode()).digest()
    if key not in _PRINTS:
        state = json.loads(written)
        state.pop("truncation", None)
        state.pop("padding", None)
        _PRINTS[key] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
    return _PRINTS[key]


def row_id(text: str, fingerprint: str) -> str:
    """Returns 16 hex characters: the hash of a row's text and of `tokenizer_fingerprint`."""
    return hashlib.sha256(f"{fingerprint}\0{text}".encode()).hexdigest()[:16]
