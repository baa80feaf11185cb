"""The command `foci study`: a writer makes study rows and probes of a corpus."""

# A command may have many flags.
# ruff: noqa: PLR0913, PLR0917

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from foci.cli.inputs import check_corpus, check_model
from foci.system.signals import Interrupted
from foci.system.terminal import Terminal

study_app = typer.Typer()

Corpus = Annotated[list[str], typer.Argument(help="Text to learn: files or folders, as of foci learn.")]
Writer = Annotated[
    str,
    typer.Option(help="Who writes: self (the model that learns), a folder, a hub id, or a server: http://.../v1."),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder to write the suite to; default: out/<name of the corpus>-study.")
]
Base = Annotated[str, typer.Option(help="Model that learns: it is the writer self, and the run file names it.")]
Model = Annotated[str | None, typer.Option(help="Name of the server's model; default: the only one that it serves.")]
Questions = Annotated[int, typer.Option(help="Questions per passage that are asked for.")]
Rewrites = Annotated[int, typer.Option(help="Rewrites per passage that are asked for, at most.")]
Workers = Annotated[int, typer.Option(help="Requests at a time; of a model on this machine, prompts per batch.")]
Limit = Annotated[int | None, typer.Option(help="Passages that are asked about, at most; default: all.")]
Words = Annotated[int, typer.Option(help="Words of a passage, about.")]
HeldOut = Annotated[
    float, typer.Option(help="Share of facts (0 to 1) whose questions and rewrites are never trained on.")
]
Seed = Annotated[int, typer.Option(help="Seed for the facts that are held out, and for --limit.")]
PriceIn = Annotated[float | None, typer.Option(help="Price of a million tokens that the writer reads.")]
PriceOut = Annotated[float | None, typer.Option(help="Price of a million tokens that the writer writes.")]
Timeout = Annotated[float, typer.Option(help="Seconds without a word from a server after which an attempt has failed.")]
Retries = Annotated[int, typer.Option(help="Further attempts of a request that fails on a server.")]
TextField = Annotated[str, typer.Option(help="Field or column that holds the text.")]
By = Annotated[
    Literal["passage", "sentence"] | None,
    typer.Option(help="What a request asks about; default: a passage, or a sentence where the writer is small."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and stop.")]


@study_app.command()
def study(
    corpus: Corpus, writer: Writer, out: Out = None, base: Base = "smollm2-135m", model: Model = None,
    questions: Questions = 5, rewrites: Rewrites = 2, workers: Workers = 4, limit: Limit = None, words: Words = 160,
    held_out: HeldOut = 0.2, seed: Seed = 0, price_in: PriceIn = None, price_out: PriceOut = None,
    timeout: Timeout = 600.0, retries: Retries = 4, text_field: TextField = "text", by: By = None,
    dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Make questions with answers, and rewrites of your text, by a writer; get study rows and probes for foci learn.

    What the writer says is checked line by line. Run the same command again to continue: no answered request is asked
    twice. The key of a server is read from OPENAI_API_KEY.
    """
    from foci.study.settings import SELF, Settings

    settings = Settings(
        tuple(corpus), writer, out, base, model, questions, rewrites, workers, limit, words, held_out, seed, price_in,
        price_out, timeout, retries, text_field, by,
    )  # fmt: skip
    check_corpus(settings.corpus)
    check_model(base)
    if not settings.is_server and writer != SELF:
        check_model(writer)
    from foci.study.run import study as run_study

    tell = partial(Terminal().print, highlight=False, markup=False, soft_wrap=True)
    try:
        found = run_study(settings, tell, dry=dry_run)
    except Interrupted as stop:
        raise stop.going_on("the same command goes on where it stopped") from None
    if found.run is not None:
        tell(f"suite: {found.run.parent}\nlearn from it: foci learn {shlex.quote(str(found.run))}")
