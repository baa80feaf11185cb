"""Temporary files: one without a name for what is larger than memory, and the words for a full temporary folder."""

import fcntl
import glob
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from foci.system.checkpoint import says_when_full
from foci.system.files import LOCK

CURE = (
    "temporary files of this command lie there; name a folder with more space (TMPDIR=FOLDER before the command), "
    "or free some space. What was finished before is intact"
)


def temporary_folder() -> Path:
    """Returns the folder for temporary files, TMPDIR where it is set. Raises FileNotFoundError where there is none."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no folder for temporary files can be written ({error.strerror}); name one with free space (TMPDIR=FOLDER "
            "before the command)"
        ) from None


@contextmanager
def in_temporary_folder() -> Iterator[Path]:
    """Yields the folder for temporary files; where it becomes full, a `DiskFull` names it and says the cure."""
    folder = temporary_folder()
    with says_when_full(folder, f"the temporary folder {folder}", CURE):
        yield folder


@contextmanager
def temporary_folder_of(prefix: str) -> Iterator[Path]:
    """Yields an empty folder, whose name begins with `prefix`, in the folder for temporary files; deleted in the end.

    Folders of this prefix that killed processes left are deleted before. A full disk is told as `DiskFull`.
    """
    with in_temporary_folder() as above:
        for left in above.glob(f"{glob.escape(prefix)}*"):
            with suppress(OSError), (left / LOCK).open("rb") as lock:  # another user's, or one that is in use
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=above, prefix=prefix) as name, (Path(name) / "begun").open("wb") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            (Path(name) / "begun").rename(Path(name) / LOCK)  # it is held before another process can see it
            yield Path(name)


def lies_in_memory(folder: Path) -> bool:
    """Returns whether what is written into a folder takes memory in place of a disk, as on `tmpfs`."""
    place = folder.resolve()
    mounts = [mount for mount in psutil.disk_partitions(all=True) if place.is_relative_to(mount.mountpoint)]
    nearest = max(mounts, key=lambda mount: len(Path(mount.mountpoint).parts), default=None)
    return nearest is not None and nearest.fstype in ("tmpfs", "ramfs")


class Scratch:
    """A file without a name: nothing is left of it after its process, also after a kill.

    `folder` is where it takes its space (None: the folder for temporary files). It is read at a place, so several may
    read it at the same time. Raises `DiskFull`, which names the folder, where nothing more fits.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._full = in_temporary_folder if folder is None else lambda: says_when_full(folder)
        with self._full():
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - open as long as it is used
        weakref.finalize(self, self._file.close)  # it has no buffer, so nothing is left to be written then
        self.size = 0

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Writes bytes at the end and returns the place where they begin."""
        begin, left = self.size, memoryview(data)
        with self._full():
            while left:
                written = os.pwrite(self._file.fileno(), left, self.size)
                self.size, left = self.size + written, left[written:]
        return begin

    def read(self, begin: int, size: int) -> bytes:
        """Returns bytes that were written."""
        read = os.pread(self._file.fileno(), size, begin)
        while len(read) < size:  # the system reads 2 GiB at a time
            read += os.pread(self._file.fileno(), size - len(read), begin + len(read))
        return read
