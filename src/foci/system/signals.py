"""Stops a run on Ctrl-C or SIGTERM: the first asks it to save and stop, the second ends it at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The end of a run by a signal, in good order: everything that can be saved is saved.

    It is no `Exception`, so that no library takes it for a failure of its own and goes on.
    """

    def __init__(self, signum: int, words: str = "") -> None:
        super().__init__(words or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def code(self) -> int:
        """Returns the exit status that a shell expects: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


SHOW_CURSOR = b"\x1b[?25h\n"
"""Shows the cursor again: a progress bar hides it, and cannot show it when the process ends at once."""


class Stop:
    """A request to stop. While `deferred`, a signal only sets `signum`; otherwise it raises `Interrupted`."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.deferred = False

    def ask(self, signum: int, _frame: FrameType | None = None) -> None:
        """Handles a signal: the first is a request to stop, the second ends the process at once."""
        if self.signum is not None:
            if sys.stdout.isatty():
                os.write(1, SHOW_CURSOR)
            os._exit(128 + signum)
        self.signum = signum
        if not self.deferred:
            raise Interrupted(signum)
        print(
            "\nstopping: a checkpoint is written after this update; press again to quit at once",
            file=sys.stderr,
            flush=True,
        )

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Lets the run go on, while open, to a point where it can save; raises `Interrupted` at the end."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.signum is not None:
            raise Interrupted(self.signum)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handles Ctrl-C and SIGTERM while open; does nothing outside of the main thread, which alone gets signals."""
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
