"""Single values, overrides and error messages of run files.

`known` are the fields of a run by dotted key (`foci.config.run.fields`). `places` says where each value was written
("runs/x.yaml:12", "--model", "override 'train.epochs=2'"), by the keys that lead to it.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from foci.config import strict_yaml
from foci.errors import hint, shown, suggest

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_type": "a whole number",
    "is_instance_of": "text",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "literal_error": "{expected}",
    "model_type": "a mapping (key: value)",
    "string_too_short": "text of at least one character",
    "string_type": "text",
    "too_short": "at least one entry",
    "tuple_type": "text or a list of texts",
}
"""The expected value in words, by pydantic's type of error."""

_OTHER_NAMES = {
    "lr": "train.learning_rate", "rate": "train.learning_rate", "bs": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size", "gradient_accumulation_steps": "train.accumulation",
    "grad_accum": "train.accumulation", "num_train_epochs": "train.epochs", "n_epochs": "train.epochs",
    "max_steps": "train.steps", "updates": "train.steps", "iterations": "train.steps",
    "lr_scheduler": "train.schedule", "lr_scheduler_type": "train.schedule", "scheduler": "train.schedule",
    "warmup_ratio": "train.warmup", "warmup_steps": "train.warmup", "wd": "train.weight_decay",
    "clip": "train.max_grad_norm", "grad_clip": "train.max_grad_norm", "gradient_clipping": "train.max_grad_norm",
    "save_steps": "train.checkpoint_every", "save_total_limit": "train.keep_checkpoints",
    "eval_steps": "probes.every", "max_seq_length": "corpus.max_length", "seq_len": "corpus.max_length",
    "max_seq_len": "corpus.max_length", "block_size": "corpus.max_length", "context_length": "corpus.max_length",
    "data": "corpus.path", "dataset": "corpus.path", "texts": "corpus.path", "model_name": "model.name",
    "model_name_or_path": "model.name", "model_path": "model.name", "torch_dtype": "model.dtype",
    "rank": "adapter.r", "lora_r": "adapter.r", "lora_rank": "adapter.r", "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout", "peft": "adapter.type", "output_dir": "output", "out": "output",
    "out_dir": "output", "methods": "arms", "method": "arms", "questions": "probes.learn",
}  # fmt: skip
"""Names that other trainers have for a key."""

_FREE = "arms"
"""The section whose keys the user chooses."""


Inner = Literal["sgd", "adam"]
"""The learner's inner step: plain gradient descent, or Adam's first step."""
Normalise = Literal["row", "batch", "none"]
Several = Literal["each", "mean", "max"]
"""Over what the weights of an inner step sum to 1: each row, the batch, or nothing (the mean over tokens)."""
Output = Literal["sigmoid", "softplus"]
"""How a weigher's number becomes a weight: a sigmoid, between 0 and 1, or a softplus, above 0 and of any size."""

METHOD_FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<kind>\w+))?")
"""A method outside of foci: a Python file and its class, `./mine.py:Mine`."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of weights that foci never loads, because loading them can run code."""


def meant_as_path(model: str) -> bool:
    """Returns whether a model's name, if nothing is there, must be meant as a path; hub ids look like `org/model`.

    >>> meant_as_path("./model"), meant_as_path("tiny.gguf"), meant_as_path("org/model")
    (True, True, False)
    """
    suffix = Path(model).suffix
    return model.startswith((".", "~", "/")) or model.count("/") > 1 or suffix in (".gguf", *PICKLES) or "\\" in model


def expand_home(value: object) -> object:
    """Returns text with a leading `~` expanded, and any other value as it is."""
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 - hub ids stay as they are


def as_path(value: object) -> object:
    """Returns text as a path with `~` expanded, and any other value as it is."""
    return Path(str(expand_home(value))) if isinstance(value, str) and value else value


def as_paths(value: object) -> object:
    """Returns one or several paths as a tuple of texts with `~` expanded, and any other value as it is."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list | tuple):
        return tuple(expand_home(str(item) if isinstance(item, Path) else item) for item in value)
    return (expand_home(value),) if isinstance(value, str) else value


def as_texts(value: object) -> object:
    """Returns one or several texts as a tuple, and any other value as it is."""
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


def arm_name(name: str) -> str:
    """Returns the name. Raises ValueError if a folder cannot have it."""
    if not re.fullmatch(r"(?!\.)[A-Za-z0-9._-]{1,100}", name):
        raise ValueError(
            "an arm's name is a folder's name: 1 to 100 of A-Z a-z 0-9 . _ - and no dot first, "
            f"got {shown(name)}; rename it"
        )
    return name


def as_method(value: object) -> str | dict[str, dict[str, Any]]:
    """Returns a method as its name (without settings) or {name: {setting: value}}; else raises ValueError."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, settings),) = value.items()
        if not settings:
            return str(name)
        if isinstance(settings, dict):
            return {str(name): settings}
    raise ValueError(
        f"a method is its name or {{name: {{setting: value}}}}, got {shown(value)}; "
        "write for example [oracle] or [{oracle: {floor: 0.1}}]"
    )


def as_methods(value: object) -> object:
    """Returns the methods of an arm as a tuple; `as_method` checks each of them later."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"an arm is a list of methods, got {shown(value)}; write [] for none or [oracle] for one")  # noqa: TRY004
    return tuple(value)


def beside(value: Any, folder: Path) -> Any:
    """Returns an arm's methods with the files of `FILE.py:CLASS` that lie in `folder`, as seen from here.

    A file that does not lie there is left as it is written: relative to the current directory.
    """
    if isinstance(value, dict):
        return {beside(key, folder): beside(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [beside(item, folder) for item in value]
    found = METHOD_FILE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not (file := folder / found["file"]).is_file():
        return value
    here, there = Path.cwd(), file.resolve()
    path = f"./{there.relative_to(here).as_posix()}" if there.is_relative_to(here) else str(there)
    return f"{path}:{found['kind']}" if found["kind"] else path


def with_one_length(overrides: Sequence[str], raw: Mapping[str, Any]) -> list[str]:
    """Returns overrides that let a typed `train.epochs` or `train.steps` take the place of a file's other length.

    A run's own file has all keys, so without this `train.steps=2` alone would meet the epochs of the file.

    >>> with_one_length(["train.steps=2"], {"train": {"epochs": 4, "steps": None, "least_steps": 60}})
    ['train.epochs=null', 'train.least_steps=0', 'train.steps=2']
    """
    train = raw.get("train")
    typed = {key.strip(): value.strip() for key, _, value in (text.partition("=") for text in overrides)}
    own, given = train if isinstance(train, dict) else {}, set(typed)
    lengths = ("train.epochs", "train.steps")
    named = [key for key in lengths if typed.get(key, "null") not in ("null", "~", "")]
    if len(named) != 1:
        return list(overrides)
    others = {key: "null" for key in lengths if key not in given} | {"train.least_steps": "0"}
    changed = [f"{key}={value}" for key, value in others.items() if key not in given and own.get(key[6:])]
    return [*changed, *overrides]


def with_overrides(
    raw: Mapping[str, Any],
    places: Mapping[strict_yaml.Place, str],
    overrides: Sequence[str],
    known: Mapping[str, FieldInfo],
) -> tuple[dict[str, Any], dict[strict_yaml.Place, str]]:
    """Returns run data and places after overrides, each `key=value`, a dotted key and a YAML value."""
    changed, where = dict(raw), dict(places)
    for text in with_one_length(overrides, raw):
        changed, where = apply_override(changed, where, text, known)
    return changed, where


def apply_override(
    raw: Mapping[str, Any], places: Mapping[strict_yaml.Place, str], text: str, known: Mapping[str, FieldInfo]
) -> tuple[dict[str, Any], dict[strict_yaml.Place, str]]:
    """Returns run data and places after an override `key=value`, a dotted key and a YAML value."""
    key, _, value_text = (part.strip() for part in text.partition("="))
    where = f"override {text!r}"
    if not value_text:
        raise ValueError(
            f"{where}: expected key=value such as train.epochs=2, without spaces; write key=null for no value"
        )
    free = _FREE in known and key.startswith(f"{_FREE}.") and key != f"{_FREE}."
    if key not in known and not free:
        raise ValueError(f"{where}: {unknown_key(key, known)}")
    value, _ = strict_yaml.parse(value_text, where)
    path = tuple(key.split(".", 1))
    if len(path) == 1:
        changed = {**raw, key: value}
    else:
        section = raw.get(path[0])
        if section is None:
            section = dict(known[_FREE].default) if path[0] == _FREE else {}
        if not isinstance(section, dict):
            place = _place(path[:1], places, where)
            raise ValueError(f"{place}: {path[0]!r} expected a mapping (key: value), got {shown(section)}")
        changed = {**raw, path[0]: {**section, path[1]: value}}
    return changed, {p: place for p, place in places.items() if p[: len(path)] != path} | {path: where}


def explain(
    errors: Sequence[ErrorDetails],
    known: Mapping[str, FieldInfo],
    places: Mapping[strict_yaml.Place, str],
    source: str,
) -> str:
    """Returns pydantic's errors in words, one line each, in the order in which the values were written."""
    order = {place: number for number, place in enumerate(dict.fromkeys(places.values()))}
    lines = [(_place(error["loc"], places, source), _sentence(error, known)) for error in errors]
    lines.sort(key=lambda pair: order.get(pair[0], -1))
    return "\n".join(f"{place}: {sentence}" for place, sentence in lines)


def unknown_key(key: str, known: Mapping[str, FieldInfo]) -> str:
    """Returns the message about a key that a run file does not have, with the most similar key that it has.

    >>> from foci.config.run import fields
    >>> unknown_key("train.learningrate", fields())
    "unknown key 'train.learningrate'; did you mean 'train.learning_rate'?"
    >>> unknown_key("train.max_length", fields())
    "unknown key 'train.max_length'; did you mean 'corpus.max_length'?"
    >>> unknown_key("train.lr", fields())
    "unknown key 'train.lr'; did you mean 'train.learning_rate'?"
    """
    section, _, leaf = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    leaves = {name.rpartition(".")[2]: name for name in known}
    other = _OTHER_NAMES.get(leaf.lower().replace("-", "_"))
    nearest = leaves.get(leaf) or (other if other in known else None)
    long = {name: place for name, place in leaves.items() if len(name) > 2}  # any two letters are near to r
    if nearest is None and (near := suggest(leaf, siblings) or suggest(leaf, long)):
        nearest = siblings.get(near, leaves[near])
    cure = f"did you mean {nearest!r}?" if nearest else hint(key, siblings or known)
    return f"unknown key {key!r}; {cure}"


def _place(loc: Sequence[str | int], places: Mapping[strict_yaml.Place, str], source: str) -> str:
    """Returns where the value at `loc`, or the innermost section around it, was written."""
    path = tuple(loc)
    around = (places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places)
    return next(around, source)


def _sentence(error: ErrorDetails, known: Mapping[str, FieldInfo]) -> str:
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(key, known)
    if kind == "value_error":
        return f"{key!r}: {context['error']}" if key else str(context["error"])
    meaning = f"; it is: {known[key].description}" if key in known else ""
    if kind == "missing":
        return f"{key!r} is missing{meaning}"
    expected = _EXPECTED[kind].format(**context) if kind in _EXPECTED else error["msg"]
    return f"{key!r} expected {expected}, got {shown(error['input'])}{_cure(error, key, known)}{meaning}"


def _cure(error: ErrorDetails, key: str, known: Mapping[str, FieldInfo]) -> str:
    """Returns what to write instead, if the wrong value shows it."""
    kind, value = error["type"], error["input"]
    if value is None:
        return "; leave the key out for the default"
    if kind == "literal_error":
        nearest = suggest(str(value), re.findall("'([^']*)'", error["ctx"]["expected"]))
        return f"; did you mean {nearest!r}?" if nearest else ""
    if kind == "model_type" and isinstance(value, str):
        first = next(name for name in known if name.startswith(f"{key}."))
        return f"; write {key}: {{{first.rpartition('.')[2]}: {value}}}"
    if kind in ("string_type", "is_instance_of", "tuple_type") and isinstance(value, int | float):
        return f"; put it in quotes: '{value}'"
    return ""
