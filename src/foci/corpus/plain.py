"""Reads text as plain text: a tokenizer's control words, written out in a text, are spelled like any other word.

`split_special_tokens=True` of Transformers is not enough. It covers tokens that are marked as special alone (Qwen's
`<|fim_prefix|>` and `<think>` are not), and where a control word stands in the model's own vocabulary, as in a
SentencePiece unigram model, the model itself finds it in the text. So it does with the pieces `<0x00>` to `<0xFF>`,
which stand for bytes of letters that are unknown.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_SHAPE = re.compile(r"▁?[<\[{|｜].+[>\]}|｜]", re.DOTALL)  # noqa: RUF001
_FENCED = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)  # noqa: RUF001
BYTES = tuple(f"<0x{n:02X}>" for n in range(256))
"""The pieces of single bytes, in the models that spell unknown letters by bytes."""
_APART = {
    "type": "Split",
    "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
"""A pre-tokenizer that parts the name of a byte after its first letter, so that no model finds it whole."""
_HIDDEN = "\U0010ffff"
"""Before a control word's name it makes a name that no text spells. Unicode keeps this code point from ever being used;
a text that has it all the same is read with the sign for what cannot be read in its place."""
_COPIES: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, Tokenizer]]" = WeakKeyDictionary()


class Encoded(NamedTuple):
    """The tokens of a text: ids, characters [start, end) of each, and whether the tokenizer added it by itself."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    added: tuple[bool, ...]

    @property
    def lead(self) -> int:
        """The number of tokens that the tokenizer added before the text."""
        return next((n for n, added in enumerate(self.added) if not added), len(self.added))

    @property
    def tail(self) -> int:
        """The number of tokens that the tokenizer added after the text."""
        return next((n for n, added in enumerate(reversed(self.added)) if not added), 0)


def encoded(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool = True, control: bool = False
) -> list[Encoded]:
    """Returns the tokens of every text, read as plain text; `special` adds those that the tokenizer adds by itself.

    No token of the text itself is a control token, unless `control`: then control words that are written out become
    control tokens, and the tokenizer adds none that stands there already. The tokenizer is left as it was. Raises
    ValueError for a slow one.
    """
    if control:
        return [_once(made) for made in _called(texts, tokenizer, special=special, split=False)]
    made = _called(texts, tokenizer, special=special, split=True)
    marks, single = frozenset(control_words(tokenizer).values()), _bytes_of(tokenizer)
    wrong = [n for n, one in enumerate(made) if _spells(one, marks) or _names_bytes(one, single)]
    if wrong:
        again = _copy(tokenizer).encode_batch(
            [texts[n].replace(_HIDDEN, "\ufffd") for n in wrong], add_special_tokens=special
        )
        for n, encoding in zip(wrong, again, strict=True):
            made[n] = _of(encoding)
    return made


def _called(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool, split: bool) -> list[Encoded]:
    """Returns what the tokenizer itself makes of texts; `split`: tokens that it marks as special are spelled."""
    backend = _backend(tokenizer)
    if not texts:
        return []
    adds = special and backend.num_special_tokens_to_add(False) > 0
    before = backend.encode_special_tokens
    try:
        if type(tokenizer)._encode_plus is PreTrainedTokenizerFast._encode_plus:  # the same, without lists for models
            backend.no_truncation()
            backend.no_padding()
            backend.encode_special_tokens = split
            made = backend.encode_batch(list(texts), add_special_tokens=special)
            return [_of(encoding) if adds else _unframed(encoding) for encoding in made]
        batch: Any = tokenizer(
            list(texts),
            add_special_tokens=special,
            split_special_tokens=split,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    finally:
        backend.encode_special_tokens = before
    return [_of(encoding) for encoding in batch.encodings]


def _spells(read: Encoded, control: frozenset[int]) -> bool:
    """Returns whether a control token came out of the text itself."""
    return not control.isdisjoint(read.ids) and not control.isdisjoint(read.ids[read.lead : len(read.ids) - read.tail])


def _bytes_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Returns the ids of the tokens of one byte, by which some models spell unknown letters."""
    backend = _backend(tokenizer)
    return frozenset(number for name in BYTES if (number := backend.token_to_id(name)) is not None)


def _names_bytes(read: Encoded, single: frozenset[int]) -> bool:
    """Returns whether a token of one byte may stand for its name in the text: it covers several characters."""
    if single.isdisjoint(read.ids):
        return False
    return any(i in single and end - start > 1 for i, (start, end) in zip(read.ids, read.offsets, strict=True))


def control_words(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Returns the ids of the words that steer a model and that no plain text may become, by word.

    These are bracketed words (`<s>`, `[CLS]`, `<|im_start|>`) that the tokenizer marks as special, that are fenced
    (`<|...|>`), or with which its chat template marks turns (`<think>`). Other added tokens, such as runs of spaces or
    Gemma's `<h1>`, are spellings of text.
    """
    template = str(tokenizer.chat_template or "")
    found: dict[str, int] = {}
    for number, token in tokenizer.added_tokens_decoder.items():
        word = token.content
        if _SHAPE.fullmatch(word) and (token.special or _FENCED.fullmatch(word) or word in template):
            found[word] = number
    return found


def named_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns the control words that have a name in the tokenizer (its first, last, unknown ... token), sorted."""
    return sorted(set(tokenizer.all_special_tokens) & control_words(tokenizer).keys())


def _once(made: Encoded) -> Encoded:
    """Returns tokens without those that the tokenizer added where the text itself begins or ends with the same."""
    lead, end = made.lead, len(made.ids) - made.tail
    own = made.ids[lead:end]
    first = lead if lead and own[:lead] == made.ids[:lead] else 0
    last = end if made.tail and own[len(own) - made.tail :] == made.ids[end:] else len(made.ids)
    return Encoded(made.ids[first:last], made.offsets[first:last], made.added[first:last])


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets, which rows and probes need; "
            "load the model's fast tokenizer (tokenizer.json)"
        )
    fast: Any = tokenizer
    backend: Tokenizer = fast.backend_tokenizer
    return backend


def _of(encoding: Encoding) -> Encoded:
    added = tuple(map(bool, encoding.special_tokens_mask))
    return Encoded(tuple(encoding.ids), tuple(encoding.offsets), added)


def _unframed(encoding: Encoding) -> Encoded:
    """Returns tokens of which the tokenizer added none by itself."""
    ids = tuple(encoding.ids)
    return Encoded(ids, tuple(encoding.offsets), (False,) * len(ids))


def _copy(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Returns a copy of the fast backend that no text can lead to a control token; made once per tokenizer."""
    words = control_words(tokenizer)
    backend = _backend(tokenizer)
    post = backend.post_processor.__getstate__() if backend.post_processor is not None else None
    key = (tuple(words.items()), len(tokenizer), post)
    kept = _COPIES.get(tokenizer)
    if kept is None or kept[0] != key:
        state = json.loads(backend.to_str())
        _hide(state, words)
        made = Tokenizer.from_str(json.dumps(state))
        made.no_padding()
        made.no_truncation()
        made.encode_special_tokens = True
        kept = (key, made)
        _COPIES[tokenizer] = kept
    return kept[1]


def _hide(state: dict[str, Any], words: Mapping[str, int]) -> None:
    """Renames control words in a backend's state, so that their ids stay and no text spells them.

    The names of bytes keep theirs, by which unknown letters are spelled, and are parted where a text holds them.
    """
    for token in state["added_tokens"]:
        if token["content"] in words:
            token["content"] = _HIDDEN + token["content"]
    before = state.get("pre_tokenizer")
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [before, _APART]} if before else _APART
    model = state["model"]
    if isinstance(model.get("vocab"), list):  # unigram: [piece, score]
        model["vocab"] = [[_HIDDEN + piece if piece in words else piece, score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {_HIDDEN + word if word in words else word: n for word, n in model["vocab"].items()}
    if model.get("unk_token") in words:
        model["unk_token"] = _HIDDEN + model["unk_token"]
    if "merges" in model:
        pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"])
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & words.keys()]


def with_control_words(text: str, words: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Returns the tokens of a text in which the control words at `words`, [start, end), are control tokens.

    All others are read as plain text. No token is added. Raises ValueError where a tokenizer does not find a word
    again.
    """
    names = control_words(tokenizer)
    steering = frozenset(names.values()) - {tokenizer.unk_token_id}  # which unknown letters become, too
    wanted = [number for a, b in words if (number := names[text[a:b]]) in steering]
    (made,) = _called([text], tokenizer, special=False, split=False)
    if [n for n in made.ids if n in steering] == wanted and not _names_bytes(made, _bytes_of(tokenizer)):
        return made
    parts, hidden, at = list[str](), list[int](), 0
    for start, end in words:
        parts += [text[at:start], _HIDDEN, text[start:end]]
        hidden.append(start + len(hidden))
        at = end
    backend = _copy(tokenizer)
    backend.encode_special_tokens = False
    made = _of(backend.encode("".join([*parts, text[at:]]), add_special_tokens=False))
    backend.encode_special_tokens = True
    if (found := [n for n in made.ids if n in steering]) != wanted:
        raise ValueError(
            f"{type(tokenizer).__name__}: of {len(wanted)} control words that the chat template wrote, the tokenizer "
            f"found {len(found)} beside such words in messages; leave control words out of the messages"
        )
    offsets = tuple((a - bisect_left(hidden, a), b - bisect_left(hidden, b)) for a, b in made.offsets)
    return made._replace(offsets=offsets)
