"""The folder that an export is written to: whole or as it was, with room for it, by one process at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foci.system.checkpoint import says_when_full
from foci.system.files import LOCK, part_of, read_json, replacing_folder
from foci.system.folder import locked

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
    with locked(part_of(folder)), replacing_folder(folder) as part, says_when_full(part):
        yield part


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
    if others := _others(folder):
        raise FileExistsError(
            f"{folder} also holds {', '.join(others[:4])}, which no export wrote and which would be gone; move it to "
            "another place, or name another folder with --out"
        )
    if not overwrite:
        raise FileExistsError(f"{folder} holds an export already; replace it with --overwrite, or name another --out")


def files_in(folder: Path) -> list[str]:
    """Returns the files below a folder by their names in it, in order; the record of an export among them."""
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    return sorted(found - {LOCK} | {RECORD})


def _others(folder: Path) -> list[str]:
    """Returns the files that the record of an export does not name; none where it names no files, as early ones do."""
    known = (read_json(folder / RECORD) or {}).get("files")
    return [] if known is None else [name for name in files_in(folder) if name not in known]


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
