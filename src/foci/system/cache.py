"""Keeps the result of an offline stage in the method's folder, so that a resume finds it and nothing stale is read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from foci.system.files import read_json, sha256, write_json

Made = TypeVar("Made")
HASH = "sha256"
"""The key of a record that holds the hash of the content; records of earlier versions have none."""


def kept(
    path: Path,
    key: Mapping[str, str | int | float],
    make: Callable[[], Made],
    write: Callable[[Made, Path], None],
    read: Callable[[Path], Made],
) -> Made:
    """Returns what `read` finds at `path` if it was made for the same `key`; else what `make` makes, written there.

    `key` names all that the content depends on. It is written last, beside the content (`path` with the ending .json)
    and with the content's hash, so that a torn or damaged file is made again. Raises ValueError, naming what differs,
    where it was made for another key.
    """
    record = path.with_suffix(".json")
    have = read_json(record)
    digest = have.pop(HASH, None) if isinstance(have, dict) else None
    if not isinstance(have, dict) or not path.is_file() or digest not in (None, sha256(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        write(made, path)
        write_json(record, {**key, HASH: sha256(path)})
        return made
    if have != dict(key):
        names = sorted(name for name in {*have, *key} if have.get(name) != key.get(name))
        differs = "; ".join(f"{name}: {have.get(name)!r} then, {key.get(name)!r} now" for name in names)
        raise ValueError(
            f"{path} is stale, it was made for something else ({differs}); put back what has changed, "
            f"or delete {path.parent} so that it is made again"
        )
    return read(path)
