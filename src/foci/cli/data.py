"""The commands `foci data ...`: make data, or convert published files into a suite."""

# A command may have many flags. It imports its modules when it is called, so that --help is quick.
# ruff: noqa: PLR0913, PLR0917

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from foci.system.terminal import Terminal
from foci.system.words import counted

if TYPE_CHECKING:
    from foci.data.suite import Suite

data_app = typer.Typer(help="Make data, or convert published data sets into suites.", no_args_is_help=True)

Held = Annotated[
    int,
    typer.Option(
        help="Probes to learn, and as many to retain, that are held out to choose the reported point; 0 = none."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Probes to learn, and to retain, at most; default: all.")]
Seed = Annotated[int, typer.Option(help="Seed for the choice of probes.")]
Trace = Annotated[
    int, typer.Option(help="Probes to trace through a model (grad_profile); they are asked nowhere else.")
]
Out = Annotated[Path | None, typer.Option(help="Folder to write the suite to; default: out/<name of the suite>.")]


@data_app.command()
def biographies(
    out: Out = None,
    people: Annotated[int, typer.Option(help="Number of people.")] = 24,
    texts: Annotated[int, typer.Option(help="Texts per person.")] = 4,
    templates: Annotated[int, typer.Option(help="Wordings of each field in the corpus.")] = 6,
    order: Annotated[str, typer.Option(help="Order of the fields in a text: fixed or shuffled.")] = "fixed",
    names: Annotated[
        str,
        typer.Option(help="Where the full name stands: at the start of the text (once) or of every sentence (always)."),
    ] = "once",
    distance: Annotated[int, typer.Option(help="Filler words between a name and what follows it.")] = 0,
    asides: Annotated[int, typer.Option(help="Sentences per text that no probe asks about.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed for the people.")] = 0,
    asked: Annotated[
        bool, typer.Option("--asked", help="Add the probes and their answers to the corpus, to pretrain a model.")
    ] = False,
    known: Annotated[
        int | None,
        typer.Option(help="Seed of people that the model knows: they are to be retained, and are not in this corpus."),
    ] = None,
) -> None:
    """Make biographies of people who do not exist, with probes in other wordings than those of the texts."""
    from foci.data.biographies import Biographies, suite

    settings = Biographies(people, texts, templates, order, names, distance, asides, seed, asked, known)  # type: ignore[arg-type]
    _write(suite(settings), out)


@data_app.command()
def pairs(
    out: Annotated[Path, typer.Option(help="File to write the pairs to.")] = Path("out/pairs.jsonl"),
    count: Annotated[int, typer.Option(help="Number of pairs.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed for the documents.")] = 0,
    every: Annotated[bool, typer.Option("--every", help="Ask for every fact of a document, not for one.")] = False,
) -> None:
    """Make pairs of a document and a later task, for foci meta. The documents are about things that do not exist."""
    from foci.data.encyclopedia import write

    file = write(count, seed, out, every)
    Terminal().print(f"{counted(count, 'pair')} in {file}", highlight=False, soft_wrap=True)


@data_app.command()
def pages(
    out: Annotated[Path, typer.Option(help="File to write the pairs to.")] = Path("out/pages.jsonl"),
    count: Annotated[int, typer.Option(help="Number of pairs, three to six for each page.")] = 2400,
    seed: Annotated[int, typer.Option(help="Seed for the pages.")] = 0,
) -> None:
    """Make pages of ten kinds (news, handbooks, letters, ...) and questions about them, for foci meta, all made up."""
    from foci.data.pages import write

    file = write(count, seed, out)
    Terminal().print(f"{counted(count, 'pair')} in {file}", highlight=False, soft_wrap=True)


@data_app.command("lama-ckl")
def lama_ckl(
    path: Annotated[Path, typer.Argument(help="Folder with the published variant.jsonl and invariant_*.jsonl.")],
    out: Out = None,
    model: Annotated[str, typer.Option(help="Model that decides which facts are known.")] = "smollm2-135m",
    learn: Annotated[int, typer.Option(help="Facts to learn: variant ones of which the model predicts no token.")] = 64,
    retain: Annotated[
        int, typer.Option(help="Facts to retain: invariant ones of which the model predicts all tokens.")
    ] = 64,
    held_out: Annotated[
        int,
        typer.Option(help="Held-out facts to retain; facts to learn are held out in a second wording; 0 = none."),
    ] = 64,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Probes per forward pass; changes speed, not answers.")] = 32,
) -> None:
    """Convert LAMA-ckl for one model: facts to learn, which it does not know, and facts to retain, which it knows."""
    from foci.data.lama_ckl import LamaCkl, convert

    settings = LamaCkl(model, learn, retain, held_out, seed, batch_size)
    console = Terminal(stderr=True)
    _write(convert(path, settings, lambda line: console.print(line, highlight=False, soft_wrap=True)), out)


@data_app.command()
def temporalwiki(
    paths: Annotated[list[Path], typer.Argument(help="Files *_changed.jsonl and *_unchanged.jsonl of a period.")],
    corpus: Annotated[list[Path] | None, typer.Option(help="Text of what changed; can be given several times.")] = None,
    out: Out = None,
    held_out: Held = 64,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Convert TemporalWiki: facts that changed between two dumps are to learn, the others to retain."""
    from foci.data.temporalwiki import TemporalWiki, convert

    _write(convert(paths, TemporalWiki(held_out, limit, seed), corpus or []), out)


@data_app.command()
def templama(
    path: Annotated[Path, typer.Argument(help="Published train.jsonl, or its folder.")],
    out: Out = None,
    year: Annotated[int, typer.Option(help="Year to learn.")] = 2020,
    corpus: Annotated[str, typer.Option(help="Facts of the year in the corpus: all or changed.")] = "all",
    new_only: Annotated[bool, typer.Option("--new-only", help="Use only changes with a new answer.")] = False,
    held_out: Held = 20,
    limit: Limit = None,
    seed: Seed = 0,
    trace: Trace = 0,
) -> None:
    """Convert TempLAMA: facts whose answer changed in a year are to learn, the others to retain."""
    from foci.data.templama import TempLama, convert

    settings = TempLama(year, corpus, new_only, held_out, limit, seed, trace)  # type: ignore[arg-type]
    _write(convert(path, settings), out)


@data_app.command()
def ecbd(
    path: Annotated[Path, typer.Argument(help="Published all_ent_*.json, or its folder.")],
    popular: Annotated[
        Path | None, typer.Option(help="File of popular entities in the same format, to retain.")
    ] = None,
    out: Out = None,
    held_out: Held = 64,
    limit: Limit = None,
    seed: Seed = 0,
    trace: Trace = 0,
) -> None:
    """Convert ECBD: definitions of new entities are the corpus, spans of sentences about them are to learn."""
    from foci.data.ecbd import Ecbd, convert

    _write(convert(path, Ecbd(held_out, limit, seed, trace), popular), out)


@data_app.command("published-biographies")
def published_biographies(
    path: Annotated[Path, typer.Argument(help="Published biography_synthetic.csv, or its folder.")],
    known: Annotated[Path | None, typer.Option(help="CSV file of people that the model knows, to retain.")] = None,
    out: Out = None,
    held_out: Held = 50,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Convert the published biographies: a CSV file with tags in the text, five fields per person."""
    from foci.data.published_biographies import PublishedBiographies, convert

    _write(convert(path, PublishedBiographies(held_out, limit, seed), known), out)


def _write(suite: "Suite", out: Path | None) -> None:
    """Writes a suite and prints its contents, and what was left out for which reason."""
    folder = suite.write(out or Path("out") / suite.name.replace("-", "_"))
    record = suite.record()
    console = Terminal()
    for title, rows in (
        ("used", [(name, count, "") for name, count in record["used"].items()]),
        ("left out", [(r["what"], r["count"], r["why"]) for r in record["left_out"]]),
    ):
        if rows:
            table = Table(box=None, pad_edge=False, title=title, title_justify="left", show_header=False)
            table.add_column()
            table.add_column(justify="right")
            table.add_column(overflow="fold")
            for what, count, why in rows:
                table.add_row(what, str(count), why)
            console.print(table, highlight=False)
    for note in record["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
    control = record["controls"]["majority"]
    console.print(f"control: the most frequent answer of each group is right for {control:.3f}", highlight=False)
    console.print(f"suite: {folder}", highlight=False, soft_wrap=True)
