"""The settings that `train.patience` changes: such a run is long, and holds something out to judge by."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

LONGEST = 50
"""Epochs, at most, of a run with `train.patience` that sets no length of its own."""
HELD_OUT_FACTS, HELD_OUT_ROWS = 0.2, 0.05
"""The shares of facts, and of rows where no probes are given, that a run with `train.patience` holds out."""

DEFAULTS: Mapping[tuple[str, str], tuple[Any, Any]] = {
    ("train", "epochs"): (4, LONGEST),
    ("train", "least_steps"): (60, 0),
    ("train", "schedule"): ("linear", "constant"),
    ("probes", "held_out_share"): (0.0, HELD_OUT_FACTS),
    ("corpus", "held_out_share"): (0.0, HELD_OUT_ROWS),
}
"""By section and key: the default without and with patience."""


def without_other_defaults(
    raw: Mapping[str, Any], overrides: Sequence[str], known: Collection[str]
) -> Mapping[str, Any]:
    """Returns run data without the defaults that a typed `train.patience` changes, so that the right ones are taken.

    A run's own file has all keys, so without this `train.patience=2` would keep the four epochs, the falling rate and
    the held-out shares of a run without patience. A file that leaves keys out says what it means, and stays.
    """
    train = raw.get("train")
    typed = {key.strip(): value.strip() for key, _, value in (text.partition("=") for text in overrides)}
    if not isinstance(train, dict) or "train.patience" not in typed or set(train) < _keys_of("train", known):
        return raw
    before, after = train.get("patience") is not None, typed["train.patience"] not in ("null", "~", "")
    if before == after:
        return raw
    left = {place for place, both in DEFAULTS.items() if _at(raw, place) == both[before]}
    length = {("train", "epochs"), ("train", "least_steps")}
    if not length <= left:  # a length of its own
        left -= length
    sections = {
        name: {key: value for key, value in section.items() if (name, key) not in left}
        if isinstance(section, dict)
        else section
        for name, section in raw.items()
    }
    if length <= left and "epochs" not in sections["train"] and sections["train"].get("steps", 0) is None:
        del sections["train"]["steps"]
    return sections


def _keys_of(section: str, known: Collection[str]) -> set[str]:
    return {name.removeprefix(f"{section}.") for name in known if name.startswith(f"{section}.")}


def _at(raw: Mapping[str, Any], place: tuple[str, str]) -> Any:
    section = raw.get(place[0])
    return section.get(place[1]) if isinstance(section, dict) else None
