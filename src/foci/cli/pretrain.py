"""The command `foci pretrain`: trains models from scratch and compares them."""

from pathlib import Path
from typing import Annotated

import typer

from foci.cli.inputs import check_corpus, check_methods
from foci.pretrain.config import load_pretraining
from foci.system.signals import Interrupted
from foci.system.terminal import Terminal

pretrain_app = typer.Typer()


@pretrain_app.command()
def pretrain(
    file: Annotated[Path, typer.Argument(help="Pretraining file (.yaml), which names text, model, arms and seeds.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes of single keys, such as train.steps=100.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Run cells again that were run with other settings or text.")
    ] = False,
) -> None:
    """Train models from scratch, with several arms and seeds; get one table of their held-out losses.

    Run the same command again to continue: finished cells are kept.
    """
    run = load_pretraining(file, changes or [])
    check_methods(run.arms.values())
    check_corpus(run.corpus.path)
    from foci.cli.tables import print_arms, print_grid
    from foci.pretrain.grid import over_grid
    from foci.pretrain.run import pretrain as run_pretraining

    console = Terminal()
    work, show, name = (over_grid, print_grid, "grid.md") if run.grid else (run_pretraining, print_arms, "table.md")
    try:
        show(work(run, overwrite=overwrite, console=console), console)
    except Interrupted as stop:
        raise stop.going_on("the same command goes on where it stopped") from None
    console.print(f"table: {run.output / name}", highlight=False, markup=False, soft_wrap=True)
