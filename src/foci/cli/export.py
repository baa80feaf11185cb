"""The command `foci export`: writes a learned model in the forms that other programs read."""

from pathlib import Path
from typing import Annotated

import typer

from foci.system.terminal import Terminal

export_app = typer.Typer()


@export_app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, such as out/my_texts.")],
    arm: Annotated[
        str | None, typer.Option(help="Arm to export; default: the one that learned and retained most.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; default: RUN/export/ARM-model, or -adapter.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the adapter alone, for PEFT and vLLM, not the merged model.")
    ] = False,
    verify: Annotated[
        int, typer.Option(help="Questions of the run that are asked again of what was written; 0: none.", min=0)
    ] = 100,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export in this folder.")] = False,
) -> None:
    """Write a learned model for other programs; it is loaded again and asked the run's questions.

    Without flags it is the merged model for Transformers and vLLM, in the precision of the base model's files.

    Example: foci export out/my_texts --adapter --verify 20
    """
    from foci.chat.chosen import choose

    choose(run, arm)  # what is wrong with the folder is told before torch is imported
    from foci.export.run import Wanted
    from foci.export.run import export as write
    from foci.export.source import source_of

    write(source_of(run, arm), Wanted(None, adapter, out, verify, overwrite), Terminal())
