"""The folder that an export is written to: whole or as it was, with room for it, by one process at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foci.system.files import flush
from foci.system.folder import LOCK, locked

RECORD = "export.json"
"""The file by which an export knows its own folder."""


@contextmanager
def placed(folder: Path, size: int, *, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder beside `folder` to write into; it takes the place of `folder` where no error is raised.

    `size` is about how many bytes will be written. Raises FileExistsError for a file, for a folder that holds something
    else, and for an export without `overwrite`; ValueError where the disk has no room.
    """
    check_free(folder, overwrite=overwrite)
    check_room(folder, size)
    part, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)  # a process was killed between two renames
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(part):
            _empty(part)
            yield part
            for file in part.rglob("*"):
                flush(file)
            (part / LOCK).unlink(missing_ok=True)
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)  # of a process that was killed after its last rename
                folder.rename(old)
            part.rename(folder)
            flush(folder.parent)
    except FileExistsError:
        raise  # another process is writing there
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError where a folder may not be written to."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder or nothing; name another one with --out")
    if not (folder / RECORD).is_file():
        holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:4])
        raise FileExistsError(
            f"{folder} holds {holds}, but no {RECORD}, so no export wrote it; name another folder with --out"
        )
    if not overwrite:
        raise FileExistsError(f"{folder} holds an export already; replace it with --overwrite, or name another --out")


def check_room(folder: Path, size: int) -> None:
    """Raises ValueError where the disk has fewer free bytes than `size`."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < size:
        raise ValueError(
            f"the disk of {there} has {free / 1e6:,.0f} MB left, and {folder.name} needs about {size / 1e6:,.0f} MB; "
            "free some space, or name a folder on another disk with --out"
        )


def _empty(folder: Path) -> None:
    """Deletes what a process that was killed left in a folder."""
    for child in folder.iterdir():
        if child.name == LOCK:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
