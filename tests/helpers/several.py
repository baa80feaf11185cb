"""Functions and commands in several processes at once, as torchrun would start them."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

import runs
from runs import Child, Moment

STORES: list[TCPStore] = []
GRACE = 30.0
"""Seconds that torchrun gives the other processes when one has died."""


def start_call(
    call: Callable[..., None], *arguments: Any, folder: Path, count: int, moments: dict[int, Moment] | None = None
) -> list[Child]:
    """Begins `call(*arguments)` in `count` processes; `moments` are signals by the number of the process."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent has it
    STORES.append(store)
    port = store.port
    return [
        runs.start_call(
            as_process, (n, count, port), call, arguments, folder=folder, moment=(moments or {}).get(n)
        )
        for n in range(count)
    ]  # fmt: skip


def start(arguments: Sequence[object], folder: Path, count: int, moments: dict[int, Moment] | None = None) -> list:
    """Begins a command in `count` processes."""
    words = [str(argument) for argument in arguments]
    return start_call(runs.command, words, folder=folder, count=count, moments=moments)


def waited(children: list[Child]) -> list[Child]:
    """Waits until all have ended well."""
    for child in children:
        assert child.wait(200) == 0, "".join(each.err.read_text() for each in children)
    return children


def finished(arguments: Sequence[object], folder: Path, count: int) -> list[Child]:
    """Runs a command to its end in `count` processes."""
    return waited(start(arguments, folder, count))


def called(call: Callable[..., None], *arguments: Any, folder: Path, count: int) -> list[Child]:
    """Runs `call(*arguments)` to its end in `count` processes."""
    return waited(start_call(call, *arguments, folder=folder, count=count))


def killed(children: list[Child], number: int, seconds: float) -> None:
    """Kills one of the processes; the others get SIGTERM after `seconds`, and SIGKILL after `GRACE`, as by torchrun."""
    children[number].signal(signal.SIGKILL)
    assert children[number].wait() == -signal.SIGKILL
    time.sleep(seconds)
    others = [child for child in children if child.process.is_alive()]
    for child in others:
        child.signal(signal.SIGTERM)
    end = time.monotonic() + GRACE
    for child in others:
        child.process.join(max(0.0, end - time.monotonic()))
        if child.process.is_alive():
            child.signal(signal.SIGKILL)
            child.wait()


def as_process(place: tuple[int, int, int], call: Callable[..., None], arguments: Sequence[Any]) -> None:
    """Calls with the environment that a launcher gives to one of its processes; `place` is (number, count, port)."""
    number, count, port = place
    own = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in own.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": "", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    call(*arguments)
