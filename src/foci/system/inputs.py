"""Notes the files that something was begun with, and says later which of them are no longer the same."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from foci.system.files import sha256

NAMED = 3
"""Files that are named of each kind of change, at most."""


def noted(files: Iterable[Path]) -> dict[str, str]:
    """Returns the SHA-256 of every file that is there, by its path."""
    return {str(file): sha256(file) for file in files if file.is_file()}


def differences(begun: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns which files changed, are new, or are gone; "" where all are as they were.

    >>> differences({"a": "1", "b": "2"}, {"a": "3", "c": "4"})
    'changed: a; new: c; gone: b'
    """
    kinds = {
        "changed": [name for name in begun if name in now and now[name] != begun[name]],
        "new": [name for name in now if name not in begun],
        "gone": [name for name in begun if name not in now],
    }
    return "; ".join(f"{kind}: {_named(names)}" for kind, names in kinds.items() if names)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
