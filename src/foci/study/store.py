"""Keeps every answered request: one line of JSON, on the disk before the next is asked, so that none is paid twice."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

LOOP = "loop"
"""The `finish` of a reply that was ended because it went round in a loop."""


@dataclass(frozen=True)
class Reply:
    """A writer's reply: its text, tokens read and written (None where the server does not say), and why it ended."""

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish: str = ""


class Store:
    """The answered requests of a folder, by key.

    `damaged` counts lines that cannot be read; they are asked again. `kinds` counts the replies by kind of request.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.replies: dict[str, Reply] = {}
        self.damaged = 0
        self.kinds: Counter[str] = Counter()
        file.seek(0)
        raw = file.read()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):  # what a kill left of the last line
            file.truncate(whole)
        for line in raw[:whole].splitlines():
            self._read(line)
        file.seek(0, os.SEEK_END)

    def _read(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            self.replies[record["key"]] = Reply(
                str(record["text"]), record["tokens_in"], record["tokens_out"], record["finish"]
            )
            self.kinds[str(record.get("kind", ""))] += 1
        except (ValueError, KeyError, TypeError, RecursionError):
            self.damaged += 1

    def add(self, key: str, reply: Reply, **more: str) -> None:
        """Writes a reply and waits until it is on the disk. A key that is there is left as it is."""
        if key in self.replies:
            return
        line = json.dumps({"key": key, **asdict(reply), **more}) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.replies[key] = reply


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """Opens the file of answered requests, a new one or an earlier one; one process at a time may."""
    path.touch()
    with path.open("r+b") as file:
        yield Store(file)
