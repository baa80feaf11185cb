"""The command `foci advise`: short trials say which plan, rate and strength suit a text."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from foci.cli.inputs import check_run
from foci.config.run import Run
from foci.system.signals import Interrupted
from foci.system.terminal import Terminal

advise_app = typer.Typer()

Corpus = Annotated[
    list[str], typer.Argument(help="Text to learn: files or folders; and changes, such as corpus.max_length=128.")
]
Minutes = Annotated[float, typer.Option(help="Minutes that the trials may take together.")]
Model = Annotated[str | None, typer.Option(help="Model: smollm2-135m, a hub id, a folder or a .gguf file.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the trials; default: out/<name of the text>-advice.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the trials in this folder and start again.")]


@advise_app.command()
def advise(
    corpus: Corpus, minutes: Minutes = 15.0, model: Model = None, out: Out = None, overwrite: Overwrite = False
) -> None:
    """Make a run file for your text: plans, rates and strengths are tried on a part of it for some minutes.

    Trials are compared by held-out questions made from the text, and by general facts. The run file says what was seen
    and how sure it is. Run the same command again to continue. Example: foci advise my_texts/ --minutes 20
    """
    if not 0 < minutes < float("inf"):
        raise ValueError(f"--minutes is a number above 0, got {minutes}; 15 is the default")
    changes = [word for word in corpus if "=" in word and not Path(word).exists()]
    if others := [change for change in changes if not change.startswith(("corpus.", "model.", "seed="))]:
        raise ValueError(f"advise chooses plan, rate and length itself, got {others[0]}; change corpus, model or seed")
    texts = [word for word in corpus if word not in changes]
    if not texts:
        raise ValueError(f"which text is it about? Got {', '.join(corpus)} alone; write: foci advise my_texts/")
    run = Run.of_flags(texts, model, None, changes)
    check_run(run, anew=True)
    from foci.advise.run import advise as run_advise

    console = Terminal()
    tell = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    folder = out or run.output.with_name(f"{run.output.name}-advice")
    try:
        found = run_advise(run, folder, minutes, overwrite=overwrite, tell=tell)
    except Interrupted as stop:
        raise stop.going_on("the same command goes on where it stopped") from None
    tell(f"run file: {found}\ntrain: foci learn {shlex.quote(str(found))}")
