"""The command `foci watch`: a run while it trains."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from foci.system.files import existing
from foci.system.signals import Interrupted
from foci.system.terminal import Terminal

watch_app = typer.Typer()


@watch_app.command()
def watch(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as out/my_texts.")],
    every: Annotated[float, typer.Option(help="Seconds between two looks at the run's files.", min=0.1)] = 2.0,
) -> None:
    """Show how a run trains, from another terminal: its arm, update, loss, and what it learned and retained so far.

    It ends when the run ends, and changes nothing. Ctrl-C stops watching; the run goes on.

    Example: foci watch out/my_texts
    """
    existing(run, "run", "give the output folder of a `foci learn` run")
    from foci.watch.run import watch as watch_run

    console = Terminal()
    try:
        state = watch_run(run, console, every)
    except Interrupted as stop:
        raise Interrupted(stop.signum, "stopped watching; the run itself goes on") from None
    if not state.done:
        console.print(
            f"the run has stopped; go on with: foci learn {shlex.quote(str(run))} --resume",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(1)
    console.print(f"report: {run / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
