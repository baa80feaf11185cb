"""Reads conversations, completions and token ids from records; the keys of a record say what it is."""

from collections.abc import Mapping
from typing import Any

from foci.corpus.conversations.messages import Message, messages_of, of_json
from foci.corpus.conversations.samples import (
    NO_CHARACTERS,
    Completion,
    Conversation,
    TokenIds,
    Unusable,
    as_number,
    as_truth,
    listed,
)
from foci.corpus.documents import Sample
from foci.focus import IGNORED
from foci.system.texts import why_no_string

SHAPES = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "conversation": ("conversation",),
    "instruction": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
    "input_ids": ("input_ids",),
}
"""The keys that a record of each shape has."""
BESIDE = {
    "messages": ("tools",),
    "conversations": ("system", "tools"),
    "conversation": ("system", "tools"),
    "instruction": ("input", "system", "history"),
    "prompt": ("tools",),
    "input_ids": ("labels", "attention_mask", "loss_scale", "loss_mask", "completion_mask", "assistant_masks"),
}
"""The further keys that are read of it."""
KEYS = frozenset(key for keys in (*SHAPES.values(), *BESIDE.values()) for key in keys)
MASKS = ("loss_mask", "completion_mask", "assistant_masks")


def sample_of(record: Mapping[str, Any], file: str, line: int, text_field: str) -> Sample | None:
    """Returns the example of a record; None where the record is plain text, or nothing that is known.

    Raises Unusable where the keys are those of several shapes, or the example cannot be learned from.
    """
    text = record.get(text_field)
    if isinstance(text, str) if text_field in KEYS else text is not None and KEYS.isdisjoint(record):
        return None
    fields = {key: value for key, value in record.items() if value is not None}
    shapes = [shape for shape, keys in SHAPES.items() if all(key in fields for key in keys)]
    if text_field in shapes:
        shapes = [text_field]
    elif shapes and fields.get(text_field, "") != "":
        raise Unusable(
            f"it has {text_field!r}, which is plain text, and {listed(SHAPES[shapes[0]])}; leave one out, or name "
            f"what is to be read: corpus.text_field={shapes[0]}"
        )
    if len(shapes) > 1:
        named = " and ".join(listed(SHAPES[shape]) for shape in shapes)
        raise Unusable(f"it has {named}, which are different formats; leave one out, or name it as corpus.text_field")
    if not shapes:
        _check_whole(fields, text_field)
        return None
    (shape,) = shapes
    place = {"file": file, "line": line}
    if shape == "instruction":
        return _of_messages(_alpaca(fields), (), place)
    if shape == "input_ids":
        return _token_ids(fields, place)
    if shape == "prompt":
        return _prompted(fields, place)
    system = [_plain(fields["system"], "'system'")] if shape != "messages" and fields.get("system") else []
    written: list[Message] = [({"role": "system", "content": text}, None) for text in system]
    return _of_messages([*written, *messages_of(fields[shape], shape)], _tools(fields), place)


def _check_whole(fields: Mapping[str, Any], text_field: str) -> None:
    """Raises Unusable where a record has a part of what a shape needs, and no text."""
    if text_field in fields:
        return
    if {"chosen", "rejected"} <= fields.keys():
        raise Unusable("it has 'chosen' and 'rejected', a pair to prefer; give the better one as 'completion'")
    for keys in SHAPES.values():
        missing = [key for key in keys if key not in fields]
        if len(missing) < len(keys):
            has = listed([key for key in keys if key in fields])
            raise Unusable(f"it has {has} and no {listed(missing)}; give both, or a text in {text_field!r}")


def _of_messages(given: list[Message], tools: tuple[Any, ...], place: Mapping[str, Any], first: int = 0) -> Sample:
    """Returns the conversation of messages; answers before message `first` are read and not learned."""
    weights = []
    for number, (message, weight) in enumerate(given):
        own = 1.0 if weight is None else weight
        weights.append(own if message["role"] == "assistant" and number >= first else 0.0)
    if not any(message["role"] == "assistant" for message, _ in given[first:]):
        raise Unusable("it has no answer (no message of an assistant), so there is nothing to learn from it")
    if not any(weights):
        raise Unusable("every answer has the weight 0, so there is nothing to learn from it; leave it out")
    return Conversation(**place, messages=tuple(m for m, _ in given), weights=tuple(weights), tools=tools)


def _tools(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns the JSON schemas of functions that may be called."""
    tools = of_json(fields["tools"]) if fields.get("tools") else ()
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise Unusable(f"'tools' is a list of JSON schemas, got {tools!r:.60}")
    return tuple(tools)


def _plain(value: object, name: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise Unusable(f"{name} is not a text but {type(value).__name__}")
    if reason := why_no_string(value):
        raise Unusable(f"{name} is {reason}")
    if any(letter in value for letter in NO_CHARACTERS):
        raise Unusable(f"{name} has a code point that is no character (U+10FFFE or U+10FFFF); remove it")
    if not empty and not value.strip():
        raise Unusable(f"{name} is empty; write its text, or leave the line out")
    return value


def _alpaca(fields: Mapping[str, Any]) -> list[Message]:
    """Returns the messages of an instruction with its output; an input stands on the line below the instruction."""
    given = _plain(fields.get("input") or "", "'input'", empty=True)
    asked = _plain(fields["instruction"], "'instruction'") + (f"\n{given}" if given.strip() else "")
    turns = [(asked, _plain(fields["output"], "'output'"))]
    history = fields.get("history") or []
    if not isinstance(history, list | tuple) or not all(isinstance(h, list | tuple) and len(h) == 2 for h in history):
        raise Unusable(f"'history' is a list of pairs of question and answer, got {history!r:.60}")
    before = [(_plain(q, "'history'"), _plain(a, "'history'")) for q, a in history]
    messages = [{"role": "system", "content": _plain(fields["system"], "'system'")}] if fields.get("system") else []
    for question, answer in [*before, *turns]:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [(message, None) for message in messages]


def _prompted(fields: Mapping[str, Any], place: Mapping[str, Any]) -> Sample:
    prompt, completion = fields["prompt"], fields["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return Completion(
            **place, prompt=_plain(prompt, "'prompt'", empty=True), completion=_plain(completion, "'completion'")
        )
    if isinstance(prompt, str) or isinstance(completion, str):
        raise Unusable("'prompt' and 'completion' are two texts or two lists of messages, got one of each")
    before, after = messages_of(prompt, "prompt"), messages_of(completion, "completion")
    return _of_messages([*before, *after], _tools(fields), place, first=len(before))


def _token_ids(fields: Mapping[str, Any], place: Mapping[str, Any]) -> Sample:
    ids = _numbers(fields, "input_ids", None)
    labels = _numbers(fields, "labels", len(ids)) if "labels" in fields else ids
    if wrong := [n for n, (token, label) in enumerate(zip(ids, labels, strict=True)) if label not in (token, IGNORED)]:
        raise Unusable(
            f"'labels' has {labels[wrong[0]]} at position {wrong[0]}, where 'input_ids' has {ids[wrong[0]]}; expected "
            f"the same id, or {IGNORED} for a token that is not learned (labels are not shifted)"
        )
    weights = [float(label != IGNORED) for label in labels]
    for key, read in {"loss_scale": as_number, **dict.fromkeys(MASKS, as_truth)}.items():
        if key in fields:
            given = _list(fields, key, len(ids))
            weights = [w * read(v, f"{key!r}[{n}]") for n, (w, v) in enumerate(zip(weights, given, strict=True))]
    mask = _list(fields, "attention_mask", len(ids)) if "attention_mask" in fields else [1] * len(ids)
    real = [as_truth(one, "a number of 'attention_mask'") for one in mask]
    kept = [(token, weight) for token, weight, is_real in zip(ids, weights, real, strict=True) if is_real]
    if not any(weight for _, weight in kept[1:]):
        raise Unusable("no token after the first one is learned; give 'labels' other than -100, or leave it out")
    return TokenIds(**place, ids=tuple(t for t, _ in kept), weights=tuple(w for _, w in kept))


def _list(fields: Mapping[str, Any], key: str, length: int | None) -> list[Any]:
    given = fields[key]
    if not isinstance(given, list | tuple) or not given:
        raise Unusable(f"{key!r} is a list of numbers, got {given!r:.60}")
    if length is not None and len(given) != length:
        raise Unusable(f"{key!r} has {len(given)} numbers, and 'input_ids' has {length}; give one for each token")
    return list(given)


def _numbers(fields: Mapping[str, Any], key: str, length: int | None) -> list[int]:
    given = _list(fields, key, length)
    for number in given:
        if type(number) is not int:
            raise Unusable(f"{key!r} is a list of whole numbers, got {number!r:.60} in it")
    return given
