"""Opens a folder that a command writes into: refuses one that is not its own, and keeps other processes out."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from foci.system.checkpoint import says_when_full
from foci.system.files import LOCK

REPLACED = ".replaced"
"""The folder, in one that is overwritten, that keeps what was there until the new work has begun."""
MOMENT = 0.2
"""Seconds within which a process that only looks (`is_held`) has let go of the folder again."""


@dataclass(frozen=True)
class FolderKind:
    """The signs by which a command knows its own folder.

    `marker` is the file with the resolved settings, `name` the word for what the folder holds. `begun` names files that
    may lie there before the marker. `early` names files that count for nothing until `started` is written. `later` are
    keys that earlier versions did not write into the marker, with their defaults: "SECTION.KEY: VALUE". `free` are keys
    that change nothing but where the work is done, "SECTION.KEY": they may differ when a folder is gone on with.
    """

    name: str
    marker: str
    begun: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    started: str = ""
    later: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    def same(self, there: str, here: str) -> bool:
        r"""Returns whether two texts of settings, each of this or an earlier version, say the same.

        >>> kind = FolderKind("run", "run.yaml", later=("train.size: null",))
        >>> kind.same("train:\n  steps: 1\n", "train:\n  size: null\n  steps: 1\n")
        True
        >>> kind.same("train:\n  steps: 1\n", "train:\n  size: 2\n  steps: 1\n")
        False
        >>> kind.same("train:\n  steps: 1\n", "train:\n  steps: 1\nprobes:\n  size: null\n")
        False
        """
        return self.known(there) == self.known(here)

    def known(self, settings: str) -> str:
        """Returns a text of settings without the keys of `free`, and those of `later` that have their defaults."""
        section, kept = "", list[str]()
        for line in settings.splitlines(keepends=True):
            if not line.startswith(" "):
                section = line.partition(":")[0]
            key = line.removeprefix("  ").rstrip("\n")
            known = f"{section}.{key}"
            if key == line.rstrip("\n") or not (known in self.later or known.partition(":")[0] in self.free):
                kept.append(line)
        return "".join(kept)


@contextmanager
def claim(
    path: Path, kind: FolderKind, settings: str | None = None, *, resume: bool = False, overwrite: bool = False
) -> Iterator[None]:
    """Opens a folder, a new one or one of this kind, and holds it; the caller then writes the marker.

    `settings` is what the marker will hold; with None, a folder of any settings may be gone on with. `overwrite` clears
    the folder first; what was there comes back where the new work ends before its `started` file is written. Raises
    FileExistsError for a file, a folder that holds something else or other settings, these settings without `resume`,
    and a folder in which another process works.
    """
    marker = path / kind.marker
    _check_kind(path, kind)
    ours = any((path / name).is_file() for name in (LOCK, kind.started) if name)
    if settings is not None and marker.is_file() and not ours:  # somebody's own file, or a copy without the lock
        if overwrite:
            signs = " and ".join(f"no {name}" for name in (kind.started, LOCK) if name)
            raise FileExistsError(
                f"output {path} has a {kind.marker} but {signs}, so it is not a {kind.name}'s folder; name another one"
            )
        _check_settings(marker, kind, settings, resume=resume)
    with locked(path), _replaced(path, kind) as replace:
        if settings is not None and marker.is_file():
            if overwrite and ours:
                replace()
            elif ours and kind.started and not (path / kind.started).is_file():
                clear(path, kind, only=kind.early)  # refused, or killed before it counted: there is nothing to lose
            else:
                _check_settings(marker, kind, settings, resume=resume)
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes the folder and holds it; the system frees it when the process ends, however it ends.

    Raises FileExistsError where another process holds it, `DiskFull` where the disk is full.
    """
    lock = FileLock(path / LOCK)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=MOMENT, poll_interval=MOMENT / 10)
    except Timeout:
        raise FileExistsError(f"another process is working in {path}; wait for it, or name another output") from None
    except OSError as error:
        raise ValueError(
            f"output {path} cannot be written ({error.strerror or error}); name another one, or change its permissions"
        ) from None
    try:
        with says_when_full(path):
            yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Returns whether a process works in the folder. Looks alone: it makes no file, and several may look at once."""
    try:
        with (path / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def _replaced(path: Path, kind: FolderKind) -> Iterator[Callable[[], None]]:
    """Yields a function that empties the folder; what was there comes back where an error ends the new work too early.

    What a process that was killed meanwhile has left is put back first.
    """
    _settle(path, kind)
    try:
        yield partial(_set_aside, path, kind)
    except BaseException:
        _settle(path, kind)
        raise
    discard_replaced(path)


def _set_aside(path: Path, kind: FolderKind) -> None:
    """Moves all files into `REPLACED`, `started` first: where it is missing, the others come back."""
    if not kind.started:
        clear(path, kind)
        return
    aside = path / REPLACED
    aside.mkdir()
    for child in sorted(_own_files(path), key=lambda c: c.name != kind.started):
        child.rename(aside / child.name)


def _settle(path: Path, kind: FolderKind) -> None:
    """Puts back what was set aside, where the new work has not begun; else deletes it."""
    aside = path / REPLACED
    if not aside.is_dir():
        return
    if not (path / kind.started).is_file():
        for child in sorted(aside.iterdir(), key=lambda c: c.name == kind.started):
            if (new := path / child.name).is_dir() and not new.is_symlink():
                shutil.rmtree(new)
            child.replace(new)
    shutil.rmtree(aside)


def discard_replaced(path: Path) -> None:
    """Deletes what was there before the work that has begun now."""
    shutil.rmtree(path / REPLACED, ignore_errors=True)


def _own_files(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.name not in (LOCK, REPLACED)]


def clear(path: Path, kind: FolderKind, only: Sequence[str] = ()) -> None:
    """Deletes a folder's files, or `only` these names; results first and the marker last.

    So what a kill leaves in between can still be resumed or overwritten.
    """
    found = [child for child in _own_files(path) if not only or child.name in only]
    for child in sorted(found, key=lambda c: (c.name == kind.marker, c.name in kind.early, c.name == kind.started)):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _check_kind(path: Path, kind: FolderKind) -> None:
    """Refuses a file, and a folder that holds something of another kind."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"output {path} is a file, expected a folder or nothing; name another one")
    begun = {LOCK, REPLACED, f".{kind.marker}.part", *kind.begun}
    if (
        path.exists()
        and not (path / kind.marker).is_file()
        and any(child.name not in begun for child in path.iterdir())
    ):
        raise FileExistsError(
            f"output {path} holds something that is no {kind.name}: there is no {kind.marker}, so it is not a "
            f"{kind.name}'s folder; name another one"
        )


def _check_settings(marker: Path, kind: FolderKind, settings: str, *, resume: bool) -> None:
    """Refuses other settings than those of the folder, and the same ones without `resume`."""
    if not kind.same(there := marker.read_text(encoding="utf-8"), settings):
        other = _first_difference(kind.known(there), kind.known(settings))
        raise FileExistsError(
            f"output {marker.parent} belongs to another {kind.name}, with other settings ({kind.marker}: "
            f"{other}); name another output, or replace that {kind.name} with --overwrite"
        )
    if not resume:
        raise FileExistsError(
            f"output {marker.parent} already holds this {kind.name}; continue it with --resume, or start again with "
            "--overwrite"
        )


def _first_difference(there: str, here: str) -> str:
    """Returns the first pair of lines that differ, in words."""
    old, new = there.splitlines(), here.splitlines()
    for a, b in zip(old, new, strict=False):
        if a != b:
            return f"{a.strip()!r} there, {b.strip()!r} here"
    return f"{len(old)} lines there, {len(new)} here"
