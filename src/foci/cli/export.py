"""The command `foci export`: writes a learned model in the forms that other programs read."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foci.system.terminal import Terminal

if TYPE_CHECKING:
    from foci.export.push import Hub

export_app = typer.Typer()


@export_app.command()
def export(  # noqa: PLR0913, PLR0917 - a command may have many flags
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, such as out/my_texts.")],
    arm: Annotated[
        str | None, typer.Option(help="Arm to export; default: the one that learned and retained most.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; default: RUN/export/ARM-model, -q8_0, -adapter.")
    ] = None,
    gguf: Annotated[
        str | None, typer.Option(help="Write one GGUF file for Ollama and llama.cpp: f16, q8_0 or q4_k_m.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the adapter alone, for PEFT and vLLM, not the merged model.")
    ] = False,
    verify: Annotated[
        int, typer.Option(help="Questions of the run that are asked again of what was written; 0: none.", min=0)
    ] = 100,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export in this folder.")] = False,
    push: Annotated[
        str | None,
        typer.Option(help="Push the export to this Hugging Face repository, OWNER/NAME; a new one is private."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make the repository public, even if it is private now.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Push without asking.")] = False,
) -> None:
    r"""Write a learned model for other programs; it is loaded again and asked the run's questions.

    Without flags it is the merged model for Transformers and vLLM, in the precision of the base model's files.

    With --gguf it is one file with a Modelfile for Ollama, by llama.cpp's converter (pip install 'foci\[export]').

    --push OWNER/NAME puts the folder on the Hugging Face hub; an export that is there already is not made again.

    Examples: foci export out/my_texts --gguf q8_0 or foci export out/my_texts --adapter --verify 20
    """
    if gguf is not None and adapter:
        raise ValueError(f"--adapter and --gguf {gguf} are two forms, expected one; give two commands")
    if push is None and (public or yes):
        raise ValueError(f"{'--public' if public else '--yes'} goes with --push REPOSITORY, got none; give both")
    from foci.learn.chosen import choose

    choose(run, arm)  # what is wrong with the folder is told before torch is imported
    hub = _hub(push, public=public, yes=yes) if push is not None else None
    from foci.export.run import Wanted, written
    from foci.export.source import source_of

    source, wanted = source_of(run, arm), Wanted(gguf, adapter, out, verify, overwrite)
    written(source, wanted, Terminal(), hub)


def _hub(repo: str, *, public: bool, yes: bool) -> "Hub":
    """Returns the repository to push to, after it was asked whether to; raises ValueError where it cannot be used."""
    from foci.export.push import Hub

    hub = Hub(repo, private=not public)
    hub.check()
    if yes:
        return hub
    who = "everybody sees it" if public else "private"
    if hub.opens:
        who = "it is private now; everybody will see it and all that it holds"
    if not sys.stdin.isatty():
        raise ValueError(f"--push {repo} sends the model to the hub ({who}); say --yes where nobody can be asked")
    if not typer.confirm(f"Send the model, its card and the names of your files to {repo} ({who})?"):
        raise typer.Exit(1)
    return hub
