"""Ctrl-C and SIGTERM: the first asks, the second insists."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal ended the run in good order; what there was to save is saved.

    No `Exception`, so that no library on the way takes it for a failure of its own and goes on.
    """

    def __init__(self, signum: int, words: str = "") -> None:
        super().__init__(words or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def code(self) -> int:
        """The exit status a shell expects: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


SHOW_CURSOR = b"\x1b[?25h\n"
"""Shows the cursor again: a progress bar hides it, and cannot show it when the process ends at once."""


class Stop:
    """Whether somebody asked to stop. While `deferred`, asking only sets `signum`; else it raises `Interrupted`."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.deferred = False

    def ask(self, signum: int, _frame: FrameType | None = None) -> None:
        """The signal handler."""
        if self.signum is not None:
            if sys.stdout.isatty():
                os.write(1, SHOW_CURSOR)
            os._exit(128 + signum)
        self.signum = signum
        if not self.deferred:
            raise Interrupted(signum)
        print(
            "\nstopping: a checkpoint is written after this update; again to quit at once", file=sys.stderr, flush=True
        )

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """While open, the run goes on to a point where it can save; `Interrupted` is raised at the end."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.signum is not None:
            raise Interrupted(self.signum)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Listens to Ctrl-C and SIGTERM while open (in the main thread; elsewhere signals are not ours to take)."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
