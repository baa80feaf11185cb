"""Holds a folder against a second process, and clears it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
"""Held by the process that works in the folder."""


MADE_FIRST = ("rows.parquet", "quarantine.jsonl", "corpus.json", "probes.jsonl", "text.txt", "baseline")
"""Files that are written before start.json, which makes them count."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes the folder and holds it; the system frees it when the process ends, however it ends.

    Raises FileExistsError where another process holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise FileExistsError(f"another process is working in {path}; wait for it, or name another output") from None
    try:
        yield
    finally:
        lock.release()


def clear(path: Path, only: Sequence[str] = ()) -> None:
    """Deletes a run's files, results first: what a kill leaves in between can still be resumed or overwritten."""
    found = [child for child in path.iterdir() if child.name != LOCK and (not only or child.name in only)]
    for child in sorted(
        found, key=lambda c: (c.name in ("run.yaml", "meta.yaml"), c.name in MADE_FIRST, c.name == "start.json")
    ):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
