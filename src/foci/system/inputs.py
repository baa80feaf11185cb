"""Notes the files that something was begun with, and says later which of them are no longer the same."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from foci.system.files import sha256

NAMED = 3
"""Files that are named of each kind of change, at most."""


def noted(files: Iterable[Path]) -> dict[str, str]:
    """Returns the SHA-256 of every file that is there, by its path."""
    return {str(file): sha256(file) for file in files if file.is_file()}


def hashes(root: Path, files: Iterable[Path]) -> dict[str, str]:
    """Returns the SHA-256 of every file that is there, by its path below `root`."""
    return {file.relative_to(root).as_posix(): sha256(file) for file in files if file.is_file()}


def damaged(root: Path, written: object, may_miss: Collection[str] = ()) -> list[str]:
    """Returns the files that are no longer what was written, sorted; `written` is what `hashes` returned.

    Files in the folders `may_miss` may be gone. What is no such mapping (of an earlier version) names no file.
    """
    named: Mapping[Any, Any] = written if isinstance(written, Mapping) else {}
    return sorted(
        str(name)
        for name, digest in named.items()
        if ".." not in Path(str(name)).parts and not Path(str(name)).is_absolute()
        if not ((root / name).is_file() and sha256(root / name) == digest)
        and ((root / name).exists() or Path(name).parts[0] not in may_miss)
    )


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
