"""Writes a run file for people: the keys that matter, each under its meaning, and further ones ready to be used."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from foci.config.run import FOCUSED, Run, fields

FURTHER = (
    "model.dtype", "corpus.max_length", "probes.retain", "probes.every", "adapter.r", "train.patience", "train.warmup",
)  # fmt: skip
"""Keys that a run file names in comments, with their defaults."""
ARMS = {
    "plain": "plain fine-tuning, to compare with",
    "focused": "four methods together: what to learn is weighed and asked for, all else is held as it was",
}
"""Meanings of the arms that `foci learn` compares by default."""


def run_file(settings: Mapping[str, Any], head: Sequence[str], further: Sequence[str] = FURTHER) -> str:
    """Returns a run file as text: `head` as comments, then `settings` (values by dotted key) in the order of all keys.

    Each key stands below its meaning. `further` are keys that stand in comments, with their defaults; those that are
    set, and those of sections of which nothing is set, are left out. `load_run` reads the settings back.

    >>> print(run_file({"corpus.path": "texts"}, ["Learns texts."], ["corpus.max_bad"]))
    # Learns texts.
    <BLANKLINE>
    corpus:
      # file or folder of text (.txt, .md, .jsonl, .pdf, .docx, .html, .zip, ...), or a list
      path: "texts"
      # largest share of bad lines (0 to 1) with which a run goes on
      # max_bad: 0.01
    <BLANKLINE>
    """
    lines, known = [f"# {line}".rstrip() for line in head], fields()
    sections = {key.partition(".")[0] for key in settings}
    for name, info in known.items():
        section, _, key = name.partition(".")
        if section not in sections or (name not in settings and name not in further and key):
            continue
        if not key:
            is_section = any(other.startswith(f"{section}.") for other in known) and section not in settings
            lines += (
                ["", f"{section}:"] if is_section else ["", *_key("", section, settings[section], info.description)]
            )
        elif name in settings:
            lines += _key("  ", key, settings[name], info.description)
        else:
            lines += [f"  # {info.description}", f"  # {key}: {_value(info.default)}"]
    return "\n".join(lines) + "\n"


def arms_of(*names: str) -> dict[str, Any]:
    """Returns the arms of these names as a run file has them."""
    known = {"plain": [], "focused": list(FOCUSED)}
    return {name: known[name] for name in names}


def _key(indent: str, key: str, value: Any, meaning: str | None) -> list[str]:
    if key != "arms":
        return [f"{indent}# {meaning}", f"{indent}{key}: {_value(value)}"]
    arms = [[f"  # {ARMS[name]}"] * (name in ARMS) + [f"  {name}: {_value(arm)}"] for name, arm in value.items()]
    return [f"# {meaning}", "arms:", *(line for arm in arms for line in arm)]


def _value(value: Any) -> str:
    """Returns a value as YAML on one line; JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def settings_of(run: Run, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the values of a run by dotted key, as a run file has them."""
    dumped = run.model_dump(mode="json")

    def value(key: str) -> Any:
        section, _, name = key.partition(".")
        return dumped[section][name] if name else dumped[section]

    return {key: value(key) for key in keys}
