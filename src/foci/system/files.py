"""Reads and writes JSON, JSON lines and text, all or nothing."""

import difflib
import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from foci.system import launch


def is_plain(name: str) -> bool:
    """Tells whether a name that was read from a file names something in a folder itself, and leads nowhere else.

    >>> is_plain("model.safetensors"), is_plain("../model.safetensors"), is_plain("/etc/passwd"), is_plain("..")
    (True, False, False, False)
    """
    return bool(name) and name not in (".", "..") and not any(char in name for char in "/\\\0")


def existing(path: str | Path, noun: str, cure: str) -> Path:
    """Returns the path if something is there.

    Raises FileNotFoundError, which begins with `noun`, names the first part of the path that is missing, and says the
    most similar name beside it, or `cure` where none is similar.
    """
    path = Path(path)
    if path.exists():
        return path
    if path.is_symlink():
        raise FileNotFoundError(f"{noun} {path} is a link to {path.readlink()}, which leads to nothing; {cure}")
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    names = sorted(entry.name for entry in missing.parent.iterdir()) if missing.parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, names, n=1)
    cure = f"did you mean {missing.parent / near[0]}?" if near else cure
    raise FileNotFoundError(f"{noun} {path}: {missing.name!r} is not in {missing.parent.resolve()}; {cure}")


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yields a name beside `path` to write a file to; the file takes the place of `path` where no error is raised.

    So `path` is whole or as it was, at every moment. `shared`: several processes may write the file at the
    same time; those of a launcher always may. What a process leaves that is killed meanwhile goes when the file is
    written again: each holds what it writes, and what nobody holds is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f".{os.getpid()}" if shared else f".{launch.number()}" if launch.number() else ""
    part = path.with_name(f".{path.name}{own}.part")
    with ExitStack() as held:
        try:
            if shared:
                held.enter_context(_held(part))
            yield part
            flush(part)
            part.replace(path)
            if shared:
                _delete_left(path)
        finally:
            part.unlink(missing_ok=True)


def _held(part: Path) -> BinaryIO:
    """Returns a part, opened and locked; made again where another process took it for a left one in between."""
    while True:
        file = part.open("ab")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == part.stat().st_ino:
                return file
        file.close()


def _delete_left(path: Path) -> None:
    """Deletes what killed processes left of a file: parts of it that no process holds."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


LOCK = ".lock"
"""The file in a folder that is held by the process that works in it (`foci.system.folder.locked`)."""


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` to write into; it takes the place of `path` where no error is raised.

    So `path` is whole or as it was, but for a moment between two renames: what a process leaves that is killed then is
    put back by the next one (`settle`). A link stays: the folder that it points to is replaced, and the new one is
    written beside that. Another process must not write the same folder; `part_of(path)` can be locked.
    """
    part, path, old = part_of(path), _meant(path), _old(path)
    settle(path)
    part.mkdir(parents=True, exist_ok=True)
    for child in part.iterdir():  # of a process that was killed
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != LOCK:
            child.unlink()
    try:
        yield part
        _take_place(part, path, old)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _delete(old)


def part_of(path: Path) -> Path:
    """Returns the folder that `replacing_folder` writes into."""
    path = _meant(path)
    return path.with_name(f".{path.name}.part")


def settle(path: Path) -> None:
    """Puts a folder back, or deletes what was there before it, where `replacing_folder` was killed at its end."""
    path, old = _meant(path), _old(path)
    if path.exists():
        _delete(old)
    elif old.exists():
        old.rename(path)


def _meant(path: Path) -> Path:
    """Returns the folder that a link points to, whether it is there or not; another path as it is."""
    return path.resolve() if path.is_symlink() else path


def _old(path: Path) -> Path:
    path = _meant(path)
    return path.with_name(f".{path.name}.old")


def _delete(path: Path) -> None:
    """Deletes a folder, as far as possible, or a link (but not what it points to)."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _take_place(part: Path, path: Path, old: Path) -> None:
    """Renames `part` to `path`, and what is there to `old`."""
    for file in (*part.rglob("*"), part):
        flush(file)
    (part / LOCK).unlink(missing_ok=True)
    if path.exists():
        _delete(old)
        path.rename(old)
    try:
        part.rename(path)
    except OSError:
        if old.exists() and not path.exists():
            old.rename(path)  # as it was
        raise
    flush(path.parent)


SEAL = "seal"
"""The key of a sealed JSON file that holds the hash of all the others."""


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file, without its seal; None where there is no file.

    Raises ValueError, with its name, for a file that is no JSON or whose content is not that which was sealed.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: it is not JSON ({error}); put the whole file back, or begin anew"
        ) from None
    if isinstance(value, dict) and SEAL in value and value.pop(SEAL) != seal_of(value):
        raise ValueError(
            f"{path} is damaged: its content is not what was written (the hash under {SEAL!r} differs); put the whole "
            "file back, or begin anew"
        )
    return value


def seal_of(value: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the content of a JSON file, however it is laid out."""
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Writes JSON, all or nothing. `sealed`: with the hash of its content, so that `read_json` refuses another one."""
    written = {**value, SEAL: seal_of(value)} if sealed else value
    write_text(path, json.dumps(written, indent=1, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSONL file, none where there is no file; a torn last line is left out.

    Raises ValueError, with the file's name, where a line is not JSON.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: a line of it is not JSON ({error}); put the whole file back") from None


def write_lines(path: Path, values: list[dict[str, Any]]) -> None:
    """Writes a JSONL file, all or nothing."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Adds one object to a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def append_step(path: Path, value: Mapping[str, Any]) -> None:
    """Adds the line of an update to a JSONL file, unless its `step` has one: a process that was killed wrote it."""
    if all(line["step"] != value["step"] for line in read_lines(path)):
        append_line(path, value)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, its line ends as they are, all or nothing."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def xxh3(path: Path) -> str:
    """Returns the XXH3 (128 bits) of a file's bytes, in hexadecimal digits: it finds damage, six times as fast."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()  # type: ignore[arg-type]


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
