"""The command `foci chat`: both models of a run answer a question."""

# A command may have many flags.

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
) -> None:
    """Ask the untouched and the learned model of a run side by side; see the corpus' nearest passage.

    Without a question it is a conversation; from a pipe, one question a line.

    Examples: foci chat out/my_texts "Who built the mill?"
    """
    from foci.chat.chosen import choose

    chosen = choose(run, arm)
    if question is not None and not question.strip():
        raise ValueError("the question is empty, so there is none to answer; write one, or leave it out to talk")
    gc.disable()  # what is imported and loaded here stays: without collections a fifth of the start is saved
    from foci.chat.session import Session
    from foci.chat.terminal import once, piped, talk
    from foci.chat.writing import Decoding

    session = Session(chosen, Decoding(max_tokens, temperature, seed), plain=plain)
    gc.freeze()
    gc.enable()
    console = Console()
    if question is not None:
        once(session, question.strip(), console)
    elif sys.stdin.isatty():
        talk(session, console)
    else:
        piped(session, sys.stdin, console)
