"""The console that every command prints to: texts are shown as they are, and a lost output stops the run in order."""

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from foci.system import launch
from foci.system.harmless import visible
from foci.system.signals import output_lost


class Terminal(Console):
    """A console without markup: `[x]` in a path is `[x]`. What would steer the terminal is written out.

    Where its stream can no longer be written (a closed pipe, a full disk), it becomes silent, and the run that is open
    is asked to stop, as by a signal. Of several processes of a launcher, the first alone prints.
    """

    def __init__(self, **settings: Any) -> None:
        plain = {"markup": False, "emoji": False, "highlight": False, "quiet": not launch.is_first()}
        super().__init__(**{**plain, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Returns a string as rich text, harmless: rich itself would leave some controls out without a trace."""
        return super().render_str(visible(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the parts of what is printed, harmless."""
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=visible(part.text))

    @property
    def file(self) -> Any:
        """The stream that is written."""
        return _Output(super().file, self)

    @file.setter
    def file(self, stream: Any) -> None:
        Console.file.fset(self, stream)  # type: ignore[attr-defined]

    def lose(self, stream: Any, error: OSError) -> None:
        """Is silent from here on, and asks the run to stop."""
        self.quiet = True
        silence(stream)
        output_lost(error)


class _Output:
    """A stream whose errors end the output, not the work."""

    def __init__(self, stream: Any, console: Terminal) -> None:
        self._stream, self._console = stream, console

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._console.lose(self._stream, error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._console.lose(self._stream, error)


def silence(stream: Any) -> None:
    """Sends what is still written to a stream to nowhere, so that the interpreter can flush it at its end."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # a stream of memory has none
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
