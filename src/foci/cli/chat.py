"""The command `foci chat`: both models of a run answer a question."""

# A command may have many flags.
# ruff: noqa: PLR0913, PLR0917

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from foci.system.terminal import Terminal

if TYPE_CHECKING:
    from foci.chat.session import Session
    from foci.learn.chosen import Chosen

chat_app = typer.Typer()


@chat_app.command()
def chat(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as out/my_texts.")],
    question: Annotated[
        str | None, typer.Argument(help="Question to answer; without one, questions are read from the terminal.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Arm to talk to; default: the one that learned and retained most.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token; higher: drawn more freely.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn, where the temperature is above 0.")] = 0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Complete the text, without the model's chat template.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Serve a page to this machine alone, and say its address.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the page; 0: any that is free.", min=0, max=65535)] = 0,
) -> None:
    """Ask the untouched and the learned model of a run side by side; see the corpus' nearest passage.

    Without a question it is a conversation; from a pipe, one question a line.

    Examples: foci chat out/my_texts "Who built the mill?" or foci chat out/my_texts --web
    """
    from foci.learn.chosen import choose

    chosen = choose(run, arm)
    if question is not None and not question.strip():
        raise ValueError("the question is empty, so there is none to answer; write one, or leave it out to talk")
    if web and question is not None:
        raise ValueError(f"--web serves a page to ask on, got the question {question!r} too; leave one of them out")
    serving = _page(port) if web else None
    load, console = partial(_loaded, chosen, (max_tokens, temperature, seed), plain=plain), Terminal()
    if serving is not None:
        serving(load, console)
        return
    session = load()
    from foci.chat.terminal import once, piped, talk

    if question is not None:
        once(session, question.strip(), console)
    elif sys.stdin.isatty():
        talk(session, console)
    else:
        piped(session, sys.stdin, console)


def _loaded(chosen: "Chosen", drawn: tuple[int, float, int], *, plain: bool) -> "Session":
    """Loads both models; what is imported stays, so without collections of garbage a quarter of the start is saved."""
    gc.disable()
    try:
        from foci.chat.session import Session
        from foci.chat.writing import Decoding

        return Session(chosen, Decoding(*drawn), plain=plain)
    finally:
        gc.freeze()
        gc.enable()


def _page(port: int) -> "Callable[[Callable[[], Session], Console], None]":
    """Returns what serves the page, on a port that is held from now on: what is wrong is told before models load."""
    try:
        from foci.chat import web
    except ImportError as error:
        raise ImportError(
            f"foci chat --web needs the packages starlette and uvicorn ({error}): pip install 'foci[chat]'"
        ) from None
    bound = web.listening(port)

    def served(load: "Callable[[], Session]", console: Console) -> None:
        with bound:
            web.serve(load, bound, partial(console.print, highlight=False, markup=False, soft_wrap=True))

    return served
