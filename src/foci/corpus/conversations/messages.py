"""Messages of OpenAI, Transformers, ShareGPT, Axolotl and ms-swift: one form for all, with a weight for each."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from foci.corpus.conversations.samples import NO_CHARACTERS, Unusable, as_number, as_truth, listed
from foci.system.texts import why_no_string

ROLES = {role: role for role in ("system", "developer", "user", "assistant", "tool")}
SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
"""ShareGPT's names, and the role that each means."""
TEXT_PARTS = ("text", "input_text", "output_text")
KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "thinking")
"""Keys of a message that a chat template may read beside role and content."""
WEIGHTS = {"weight": as_number, "loss_scale": as_number, "train": as_truth, "loss": as_truth}
"""Keys of other tools that say how much a message counts."""

Message = tuple[dict[str, Any], float | None]
"""A message as a chat template reads it, and the weight that the record gives it; None where it gives none."""


def messages_of(given: object, key: str) -> list[Message]:
    """Returns the messages of a list. Raises Unusable with the message's number where one cannot be read."""
    given = of_json(given)
    if not isinstance(given, list | tuple):
        raise Unusable(f"{key!r} is not a list of messages but {type(given).__name__}")
    if not given:
        raise Unusable(f"{key!r} is an empty list; give at least one question and one answer")
    return [_message(one, f"message {number}") for number, one in enumerate(given, start=1)]


def of_json(given: object) -> object:
    """Returns the list in a string of JSON (tables without nested columns hold such), or what is given itself."""
    try:
        return json.loads(given) if isinstance(given, str) and given.lstrip().startswith("[") else given
    except ValueError:
        return given


def _message(given: object, name: str) -> Message:
    if not isinstance(given, Mapping):
        raise Unusable(f"{name} is not an object with a role and a content but {type(given).__name__}")
    fields = {key: value for key, value in given.items() if value is not None}
    role = _role(fields, name)
    name = f"{name} ({role})"
    message: dict[str, Any] = {"role": role, "content": _content(fields, given, name)}
    message |= {key: fields[key] for key in KEPT if fields.get(key)}
    if "tool_calls" in message:
        message["tool_calls"] = _calls(message["tool_calls"], role, name)
    _check_strings(message, name)
    return message, _weight(fields, message["content"], role, name)


def _role(fields: Mapping[str, Any], name: str) -> str:
    """Returns the role of a message, under the name that OpenAI and Transformers give it."""
    if "role" in fields and "from" in fields:
        raise Unusable(f"{name} has both 'role' and 'from'; leave one of them out")
    key, known = ("from", SHAREGPT) if "from" in fields else ("role", ROLES)
    said = fields.get(key)
    if said is None:
        raise Unusable(f"{name} has no 'role' (its keys are {', '.join(map(repr, fields)) or 'none'})")
    if not isinstance(said, str) or said not in known:
        raise Unusable(f"{name} has the unknown {key} {said!r:.60}; expected {listed(list(known))}")
    return known[said]


def _content(fields: Mapping[str, Any], given: Mapping[str, Any], name: str) -> str:
    key = "value" if "from" in fields else "content"
    content = fields.get(key)
    if content is None:
        if fields.get("tool_calls"):
            return ""
        said = "is null" if key in given else "is missing"
        raise Unusable(f"{name}: its {key!r} {said}; write its text, or leave the message out")
    if isinstance(content, list | tuple):
        content = "\n".join(_part(part, name) for part in content)
    if not isinstance(content, str):
        raise Unusable(f"{name}: its {key!r} is not a text but {type(content).__name__}")
    if not content.strip() and not fields.get("tool_calls"):
        raise Unusable(f"{name}: its {key!r} is empty; write its text, or leave the message out")
    return content


def _part(part: object, name: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if not isinstance(part, Mapping) or kind not in TEXT_PARTS:
        raise Unusable(f"{name} has a part of the type {kind!r:.60}; foci reads parts of the type 'text' alone")
    if not isinstance(part.get("text"), str):
        raise Unusable(f"{name} has a part of the type {kind!r} whose 'text' is no string")
    return str(part["text"])


def _calls(calls: object, role: str, name: str) -> list[dict[str, Any]]:
    """Returns calls of tools whose arguments are objects, as chat templates expect them; OpenAI writes them as JSON."""
    if role != "assistant" or not isinstance(calls, list | tuple) or not all(isinstance(c, Mapping) for c in calls):
        raise Unusable(f"{name}: 'tool_calls' is a list of calls, in an assistant's message; got {calls!r:.60}")
    return [_call(dict(call), name) for call in calls]


def _call(call: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a call of a tool whose arguments are an object."""
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        raise Unusable(f"{name}: the arguments of a call are no JSON: {function['arguments']!r:.60}") from None
    return {**call, "function": {**function, "arguments": arguments}}


def _check_strings(value: object, name: str) -> None:
    """Raises Unusable where a string, at any depth, is no text."""
    if isinstance(value, str):
        if reason := why_no_string(value):
            raise Unusable(f"{name} is {reason}")
        if any(letter in value for letter in NO_CHARACTERS):
            raise Unusable(f"{name} has a code point that is no character (U+10FFFE or U+10FFFF); remove it")
    elif isinstance(value, Mapping):
        for one in value.values():
            _check_strings(one, name)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_strings(one, name)


def _weight(fields: Mapping[str, Any], content: str, role: str, name: str) -> float | None:
    """Returns the weight that other tools' keys give a message; None where none of them stands there."""
    said = {key: read(fields[key], f"{name}: its {key!r}") for key, read in WEIGHTS.items() if key in fields}
    if "train_detail" in fields:
        said["train_detail"] = _detail(fields["train_detail"], content, name)
    if len(set(said.values())) > 1:
        raise Unusable(f"{name}: {listed(list(said))} say different weights ({said}); leave one of them")
    weight = next(iter(said.values()), None)
    if weight and role != "assistant":
        raise Unusable(
            f"{name}: {next(iter(said))!r} is set on a message of {role!r}, and foci learns only the assistant's; "
            "remove the key, or learn every token with corpus.loss=all"
        )
    return weight


def _detail(given: object, content: str, name: str) -> float:
    """Returns the weight of a `train_detail` that says the same of the whole message."""
    parts = [part for part in given if isinstance(part, Mapping)] if isinstance(given, list | tuple) else []
    if not parts or not all("train" in part for part in parts):
        raise Unusable(f"{name}: 'train_detail' is a list of parts with 'train', got {given!r:.60}")
    weights = {as_truth(part["train"], f"{name}: 'train' of a 'train_detail'") for part in parts}
    bounds = sorted((part.get("begin_offset"), part.get("end_offset")) for part in parts)
    whole = all(isinstance(bound, int) for pair in bounds for bound in pair) and _covers(bounds, len(content))
    if len(weights) > 1 or not whole:
        raise Unusable(
            f"{name}: 'train_detail' weighs parts of a message, and foci weighs whole messages; use 'weight' or 'train'"
        )
    return weights.pop()


def _covers(bounds: Sequence[Sequence[Any]], length: int) -> bool:
    """Returns whether parts [begin, end], both inclusive as in Axolotl, are all of a text."""
    reached = 0
    for begin, end in bounds:
        if begin > reached:
            return False
        reached = max(reached, end + 1)
    return reached >= length
