"""Shows both answers on a terminal, and reads questions from it or from a pipe."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from types import FrameType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from foci.chat.passages import Passage
from foci.chat.session import Session
from foci.system.harmless import one_line, visible
from foci.system.signals import Interrupted
from foci.system.words import counted

NARROW = 60
"""Columns of a terminal below which the answers stand one below the other."""
NONE = "no passage of the corpus has a word of the question"
HELP = "/reset forgets what was said, /quit ends. Ctrl-C stops an answer, Ctrl-D ends."


def show(session: Session, question: str, console: Console) -> bool:
    """Answers one question and shows both answers, then the passage; returns False where Ctrl-C stopped the answers."""
    said = ["", ""]
    with stops_on_interrupt() as stop, closing(session.answer(question, stop)) as pieces:
        if console.is_terminal:
            with Live(_answers(session, said, console), console=console, transient=True, refresh_per_second=12) as live:
                for piece in pieces:
                    said[piece.side] += piece.text
                    live.update(_answers(session, said, console))
            console.print(_answers(session, said, console))
        else:
            for piece in pieces:
                said[piece.side] += piece.text
            for name, text in zip(session.names, said, strict=True):
                _line(console, f"{name}: {text.strip()}")
        if stop.is_set():
            console.print(Text("stopped", style="dim"))
            return False
    _show_passage(session, question, console)
    return True


def _answers(session: Session, said: list[str], console: Console) -> Table:
    """Returns both answers side by side; one below the other where the terminal is narrow."""
    names = [
        Text(one_line(name), style=style) for name, style in zip(session.names, ("bold", "bold green"), strict=True)
    ]
    texts = [Text(text.strip(), overflow="fold") for text in said]
    if console.width < NARROW:
        made = Table.grid(padding=(0, 0))
        made.add_column(overflow="fold")
        for name, text in zip(names, texts, strict=True):
            made.add_row(name)
            made.add_row(Padding(text, (0, 0, 1, 2)))
        return made
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True, padding=(0, 2, 0, 0))
    for name in names:
        made.add_column(name, ratio=1, overflow="fold")
    made.add_row(*texts)
    return made


def _show_passage(session: Session, question: str, console: Console) -> None:
    found: Passage | None = session.nearest(question)
    if console.is_terminal:
        console.print()
        if found is None:
            console.print(Text(NONE, style="dim"))
        else:
            console.print(Text.assemble(("nearest passage  ", "bold"), (one_line(found.source), "cyan")))
            console.print(Padding(Text(found.shown, overflow="fold"), (0, 0, 0, 2)))
    else:
        _line(console, f"passage: {NONE}" if found is None else f"passage, {one_line(found.source)}: {found.shown}")
    if session.notice:
        console.print(Text(f"note: {session.notice}", style="dim"), soft_wrap=not console.is_terminal)


def _line(console: Console, words: str) -> None:
    console.print(words, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def stops_on_interrupt() -> Iterator[threading.Event]:
    """Sets an event at Ctrl-C, while open, in place of ending the command; a second Ctrl-C ends it at once."""
    stop = threading.Event()

    def ask(signum: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + signum)
        stop.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def once(session: Session, question: str, console: Console) -> None:
    """Answers one question. Raises Interrupted where Ctrl-C stopped the answers."""
    if not show(session, question, console):
        raise Interrupted(signal.SIGINT)


def piped(session: Session, lines: Iterable[str], console: Console) -> None:
    """Answers one question a line; empty lines are left out. A question that cannot be asked is told, and the next one
    is answered.

    Raises Interrupted where Ctrl-C stopped an answer, and ValueError at the end where no question came, or some could
    not be asked.
    """
    number, refused = 0, 0
    for number, line in enumerate(filter(None, map(str.strip, lines)), start=1):
        if number > 1:
            console.print()
        _line(console, f"> {visible(line)}")
        try:
            once(session, line, console)
        except ValueError as error:
            refused += 1
            console.print(Text(str(error), style="yellow"), soft_wrap=True)
    if not number:
        raise ValueError("no question came from standard input; write one a line, or name one: foci chat RUN QUESTION")
    if refused:
        raise ValueError(f"{refused} of {counted(number, 'question')} could not be asked; the lines above say why")


def talk(session: Session, console: Console, ask: Callable[[str], str] = input) -> None:
    """Reads questions and answers them, until /quit or Ctrl-D."""
    keeps = "what was said is remembered" if session.template is not None else "it completes each text by itself"
    console.print(Text(f"{session.chosen.run.model.name}: {keeps}. {HELP}", style="dim"))
    if sys.stdin.isatty():
        import readline  # noqa: F401, PLC0415 - gives input() its history and its keys
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while True:
            try:
                question = ask("\n> ").strip()
            except KeyboardInterrupt:
                console.print(Text("\n/quit or Ctrl-D ends", style="dim"))
                continue
            except EOFError:
                console.print()
                return
            if question in ("/quit", "/exit", "/q"):
                return
            _react(session, question, console)
    finally:
        signal.signal(signal.SIGINT, before)


def _react(session: Session, question: str, console: Console) -> None:
    """Does what a line asks for: a command, or an answer. A question that cannot be asked is told, not raised."""
    if question == "/reset":
        session.reset()
        console.print(Text("forgotten", style="dim"))
    elif question.startswith("/") and question[1:].isalpha():
        console.print(Text(HELP, style="dim"))
    elif question:
        console.print()
        try:
            show(session, question, console)
        except ValueError as error:
            console.print(Text(str(error), style="yellow"))
