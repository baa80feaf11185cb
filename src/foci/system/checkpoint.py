"""Writes and verifies checkpoints, which are complete or not there.

A checkpoint is written beside its place, every file is flushed to the disk, a manifest with sizes and hashes is
written last, and one rename makes it visible. A reader first compares it with its manifest.
"""

import errno
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from foci.system.files import flush, sha256, xxh3

MANIFEST = "manifest.json"
HASH, XXH3_DIGITS = "xxh3_128", 32
"""The key of a file's hash in a manifest, and its length; manifests of earlier versions hold SHA-256."""
THREADS = 4
"""Files that are flushed or hashed at the same time; both leave the interpreter to others."""
_NAME = re.compile(r"step-(\d+)")


class DiskFull(OSError):
    """The error of a full disk. Checkpoints that were written before are untouched."""


@contextmanager
def staged(root: Path, step: int, *, commits: bool = True) -> Iterator[Path]:
    """Gives a folder to write a checkpoint into; on leaving it becomes `root/step-N`, or nothing after an error.

    `commits` is False on all processes but the first, which alone makes the folder: the others wait for it before
    they write. Raises `DiskFull` where the disk is full.
    """
    staging, final = root / f".staging-step-{step}", root / f"step-{step}"
    root.mkdir(parents=True, exist_ok=True)
    if commits:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
    try:
        yield staging
        if commits:
            seal(staging, step)
            if final.exists():
                shutil.rmtree(final)
            staging.rename(final)
            flush(root)
    except BaseException as error:
        free = shutil.disk_usage(root).free
        written = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, Exception) and _is_full(error, free):
            last = newest(root)[0]
            raise DiskFull(
                errno.ENOSPC,
                f"the disk is full: checkpoint {final} did not fit ({written / 2**20:.0f} MiB written, "
                f"{free / 2**20:.0f} MiB left); the last checkpoint is intact: {last or 'none yet'}. "
                "Free some space and resume",
            ) from error
        raise


GO_ON = (
    "what was finished before is intact. Free some space and go on with the same command (learn and meta: with "
    "--resume)"
)


@contextmanager
def says_when_full(path: Path, name: str = "", cure: str = GO_ON) -> Iterator[None]:
    """Turns the many errors of a full disk into one `DiskFull` that says the cure; `path` is the folder in use.

    `name` is said in place of the file that the error names.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(path if path.exists() else path.parent).free
        if isinstance(error, DiskFull) or not _is_full(error, free):
            raise
        raise DiskFull(
            errno.ENOSPC,
            f"the disk is full: {name or getattr(error, 'filename', None) or path} could not be written "
            f"({free / 2**20:.1f} MiB left); {cure}",
        ) from error


def seal(folder: Path, step: int) -> None:
    """Flushes every file of a folder to the disk and writes its manifest, last.

    The disk writes while the files are hashed, from memory: the system still holds what was written just now.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    with ThreadPoolExecutor(THREADS) as pool:
        flushed = [pool.submit(flush, path) for path in sorted(paths, key=lambda p: p.stat().st_size)]
        digests = list(pool.map(xxh3, paths))
        for one in flushed:
            one.result()
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, HASH: digest}
        for path, digest in zip(paths, digests, strict=True)
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"step": step, "files": files}, indent=1))
    flush(manifest)
    flush(folder)


def why_incomplete(folder: Path, hashed: int | None = None) -> str | None:
    """Returns the reason why a checkpoint is not complete, in words; None where it is complete.

    `hashed`: files of more bytes are compared by their size alone.
    """
    promised = _promised(folder)
    if isinstance(promised, str):
        return promised
    held = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file.name[0] != "."}
    if others := held - promised.keys() - {MANIFEST}:
        return f"{min(others)} is not in its {MANIFEST}"
    for name, (size, digest) in promised.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, the manifest says {size}"
        made = xxh3 if len(digest) == XXH3_DIGITS else sha256  # of an earlier version
        if (hashed is None or size <= hashed) and made(path) != digest:
            return f"{name} is not what was written (its hash differs from the manifest)"
    return None


def _promised(folder: Path) -> dict[str, tuple[int, str]] | str:
    """Returns size and hash of each file of a manifest, by name, or the reason why it cannot be read."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return {str(name): (int(kept["bytes"]), str(kept.get(HASH) or kept["sha256"])) for name, kept in files.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}: it was not finished"
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return f"its {MANIFEST} cannot be read ({error})"


def newest(
    root: Path, why_not: Callable[[Path], str | None] = lambda _: None
) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Returns the newest complete checkpoint below `root`, and the newer ones that are not, each with the reason.

    `why_not` gives a further reason against a complete checkpoint, None where there is none.
    """
    skipped: list[tuple[Path, str]] = []
    for _, folder in sorted(_steps(root), reverse=True):
        reason = why_incomplete(folder) or why_not(folder)
        if reason is None:
            return folder, skipped
        skipped.append((folder, reason))
    return None, skipped


def require_complete(folder: Path) -> Path:
    """Returns the folder if it is a complete checkpoint.

    Raises FileNotFoundError where there is none, ValueError, with the reason, where it is not complete.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no checkpoint at {folder}; expected a folder named step-N, name one that is there"
        )
    if reason := why_incomplete(folder):
        raise ValueError(f"checkpoint {folder} is refused: {reason}; resume from another one, or start again")
    return folder


def newest_with_warning(root: Path) -> Path | None:
    """Returns the newest complete checkpoint below `root`, None without one; warns of newer ones that are not."""
    found, skipped = newest(root)
    if skipped:
        told = "; ".join(f"{folder.name}: {reason}" for folder, reason in skipped)
        begins = f"resuming from {found}" if found is not None else "training begins anew"
        warnings.warn(f"{begins}; checkpoints in {root} are not complete ({told})", stacklevel=3)
    return found


def named_or_newest(root: Path, named: str | Path | bool | None) -> str | None:
    """Returns the checkpoint to resume from: the one that is named, with True the newest below `root`; None for none.

    Raises what `require_complete` raises for one that is named.
    """
    found = newest_with_warning(root) if named is True else named or None
    return None if found is None else str(require_complete(Path(found)))


def prune(root: Path, count: int, last: int) -> None:
    """Deletes all but `count` checkpoints: those of updates after `last`, which another training left, then the oldest.

    `last` is the update whose checkpoint was just written.
    """
    for _, folder in sorted(_steps(root), key=lambda one: (one[0] <= last, one[0]))[: -count or None]:
        (folder / MANIFEST).unlink(missing_ok=True)  # from here on it is incomplete for every reader
        shutil.rmtree(folder, ignore_errors=True)


def step_of(folder: Path) -> int:
    """Returns the update at which a checkpoint was written, from its name. Raises ValueError for another name."""
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise ValueError(
            f"a checkpoint's folder is named step-N, got {folder.name!r}; name a checkpoint, or rename the folder"
        )
    return int(match[1])


def move_up(folder: Path) -> None:
    """Moves everything in a folder into its parent, and deletes the folder."""
    for child in folder.iterdir():
        child.rename(folder.parent / child.name)
    folder.rmdir()


def _steps(root: Path) -> list[tuple[int, Path]]:
    """Returns (update, folder) of every checkpoint below `root`, complete or not."""
    if not root.is_dir():
        return []
    return [(int(m[1]), p) for p in root.iterdir() if p.is_dir() and (m := _NAME.fullmatch(p.name))]


_FULL = ("no space left", "os error 28", "unexpected pos", "iostream error")
"""Words by which Python, safetensors and torch.save report a full disk."""


def _is_full(error: BaseException, free: int) -> bool:
    """Returns whether an error says that the disk is full; `free` is in bytes."""
    words = str(error).lower()
    by_number = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return by_number or any(phrase in words for phrase in _FULL) or (free < 2**20 and "writ" in words)
