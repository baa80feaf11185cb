"""Checkpoints that are whole or not there.

A checkpoint is written beside its place, every file is flushed to the disk, a manifest with sizes and hashes is
written last, and one rename makes it visible. Whoever reads one first compares it with its manifest.
"""

import errno
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foci.system.files import _sync, sha256

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d+)")


class DiskFull(OSError):
    """A checkpoint did not fit on the disk; the ones before it are untouched."""


@contextmanager
def staged(root: Path, step: int, *, commits: bool = True) -> Iterator[Path]:
    """A folder to write a checkpoint into; on leaving it becomes `root/step-N`, or nothing on an error.

    `commits` is False on all processes but the first. Raises `DiskFull` where the disk was.
    """
    staging, final = root / f".staging-step-{step}", root / f"step-{step}"
    if commits:
        shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, exist_ok=True)
    try:
        yield staging
        if commits:
            seal(staging, step)
            if final.exists():
                shutil.rmtree(final)
            staging.rename(final)
            _sync(root)
    except BaseException as error:
        free = shutil.disk_usage(root).free
        written = sum(f.stat().st_size for f in staging.rglob("*") if f.is_file())
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


def seal(folder: Path, step: int) -> None:
    """Flushes every file of a folder to the disk and writes its manifest, last."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _sync(path)
        files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"step": step, "files": files}, indent=1))
    _sync(manifest)
    _sync(folder)


def fault(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint, in words; None when it is complete."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}: it was not finished"
    except (ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, the manifest says {expected['bytes']}"
        if sha256(path) != expected["sha256"]:
            return f"{name} is not what was written (its hash differs from the manifest)"
    return None


def newest(root: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest complete checkpoint below `root`, and those passed over on the way with the reason."""
    skipped: list[tuple[Path, str]] = []
    for _, folder in sorted(_steps(root), reverse=True):
        reason = fault(folder)
        if reason is None:
            return folder, skipped
        skipped.append((folder, reason))
    return None, skipped


def demand(folder: Path) -> Path:
    """The folder, if it is a complete checkpoint; ValueError with what is missing if not."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint at {folder}; expected a folder named step-N")
    if reason := fault(folder):
        raise ValueError(f"checkpoint {folder} is refused: {reason}; resume from another one, or start again")
    return folder


def keep(root: Path, count: int) -> None:
    """Deletes all but the newest `count` checkpoints, oldest first, and what unfinished writes left behind."""
    for _, folder in sorted(_steps(root))[: -count or None]:
        (folder / MANIFEST).unlink(missing_ok=True)  # from here on it is incomplete for every reader
        shutil.rmtree(folder, ignore_errors=True)


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"a checkpoint's folder is named step-N, got {folder.name!r}")
    return int(match[1])


def lift(folder: Path) -> None:
    """Moves what is in a folder into its parent."""
    for child in folder.iterdir():
        child.rename(folder.parent / child.name)
    folder.rmdir()


def _steps(root: Path) -> list[tuple[int, Path]]:
    if not root.is_dir():
        return []
    return [(int(m[1]), p) for p in root.iterdir() if p.is_dir() and (m := _NAME.fullmatch(p.name))]


_FULL = ("no space left", "os error 28", "unexpected pos", "iostream error")
"""Words by which Python, safetensors and torch.save report a full disk."""


def _is_full(error: BaseException, free: int) -> bool:
    words = str(error).lower()
    told = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return told or any(said in words for said in _FULL) or (free < 2**20 and "writ" in words)
