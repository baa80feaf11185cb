"""Stops a run on Ctrl-C, SIGTERM, a closed terminal or a lost output: the first asks it to save and stop.

A second Ctrl-C or SIGTERM ends it at once. A closed terminal sends its signal twice, so SIGHUP never does.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from foci.system import launch


class Interrupted(BaseException):
    """The end of a run by a signal, in good order: everything that can be saved is saved.

    `words` say why it stopped, `go_on` how to go on. It is no `Exception`, so that no library takes it for a failure of
    its own and goes on.
    """

    def __init__(self, signum: int, words: str = "", go_on: str = "") -> None:
        self.signum, self.go_on = signum, go_on
        self.words = words or f"stopped by {signal.Signals(signum).name}"
        super().__init__(f"{self.words}; {go_on}" if go_on else self.words)

    def going_on(self, how: str) -> "Interrupted":
        """Returns the same end with the words that say how to go on."""
        return Interrupted(self.signum, self.words, how)

    @property
    def code(self) -> int:
        """Returns the exit status that a shell expects: 130 for Ctrl-C, 143 for SIGTERM, 141 for a closed pipe.

        It is 1 where the output cannot be written for another reason.
        """
        return 1 if self.signum == signal.SIGPIPE and self.words != CLOSED else 128 + self.signum

    @property
    def is_silent(self) -> bool:
        """Tells whether nothing is to be said: the reader of a short output has seen enough of it."""
        return self.words == CLOSED and not self.go_on


SHOW_CURSOR = b"\x1b[?25h\n"
"""Shows the cursor again: a progress bar hides it, and cannot show it when the process ends at once."""
CLOSED = "stopped: nobody reads the output any more (a closed pipe or terminal)"
_AT_ONCE = (signal.SIGINT, signal.SIGTERM)
"""Signals of which a second one ends the process."""
_open: list["Stop"] = []
"""Those that wait for signals now, innermost last."""


class Stop:
    """A request to stop. While `deferred`, a signal only sets `signum`; otherwise it raises `Interrupted`.

    `abandons`: what is done now writes nothing and may be left at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.words = ""
        self.deferred = False
        self.abandons = False

    def ask(self, signum: int, _frame: FrameType | None = None, words: str = "") -> None:
        """Handles a signal: the first is a request to stop, a second Ctrl-C or SIGTERM ends the process at once."""
        if self.signum is not None:
            if signum in _AT_ONCE:
                self._end(signum)
            return
        self.signum, self.words = signum, words
        if not self.deferred:
            raise Interrupted(signum, words)
        how = "; press again to quit at once" if signum in _AT_ONCE else ""
        when = "now, and what is being asked is asked again later" if self.abandons else "after this update"
        if not launch.is_first():
            return
        with suppress(OSError):  # a closed terminal
            print(f"\nstopping: a checkpoint is written {when}{how}", file=sys.stderr, flush=True)
        if self.abandons:
            raise Interrupted(signum, words)

    @staticmethod
    def _end(signum: int) -> None:
        with suppress(OSError):
            if sys.stdout.isatty():
                os.write(1, SHOW_CURSOR)
        os._exit(128 + signum)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Lets the run go on, while open, to a point where it can save; raises `Interrupted` at the end."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.signum is not None:
            raise Interrupted(self.signum, self.words)

    @contextmanager
    def abandoning(self) -> Iterator[None]:
        """Raises `Interrupted` in the block as soon as a signal arrives, also while `deferring`.

        For work that is long, writes nothing, and can be done again. Of several processes none leaves the others
        waiting: the block is then done to its end.
        """
        if launch.count() > 1:
            yield
            return
        if self.signum is not None:
            raise Interrupted(self.signum, self.words)
        self.abandons = True
        try:
            yield
        finally:
            self.abandons = False


def leave(stop: Interrupted) -> NoReturn:
    """Ends the process at once, with the words and the status of `stop`: what a thread does cannot be stopped."""
    with suppress(OSError):
        sys.stdout.flush()
        if not stop.is_silent:
            print(f"foci: {stop}", file=sys.stderr, flush=True)
    os._exit(stop.code)


def output_lost(error: OSError) -> None:
    """Asks the run that is open to stop, because its output cannot be written any more; `error` says why."""
    closed = error.errno in (errno.EPIPE, errno.EIO)
    words = CLOSED if closed else f"stopped: the output (stdout) cannot be written ({error.strerror}); free some space"
    for stop in _open[-1:]:
        stop.ask(signal.SIGPIPE, words=words)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handles signals while open; does nothing outside of the main thread, which alone gets signals.

    SIGHUP stays ignored where it is (`nohup`).
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wanted = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop.ask) for number in wanted}
    _open.append(stop)
    try:
        yield stop
    finally:
        _open.remove(stop)
        for number, handler in before.items():
            signal.signal(number, handler)
