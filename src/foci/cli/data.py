"""`foci data ...`: make data, or convert published files into a suite's folder."""

# A command has as many flags as it has, and imports what it needs when it is called, so that --help is quick.
# ruff: noqa: PLR0913, PLR0917

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from foci.data.suite import Suite

data_app = typer.Typer(help="Make or convert data.", no_args_is_help=True)

Held = Annotated[int, typer.Option(help="Probes of each role set aside to choose the reported point; 0 = none.")]
Limit = Annotated[int | None, typer.Option(help="Probes of each role at most; default: all.")]
Seed = Annotated[int, typer.Option(help="Decides which probes are drawn.")]
Trace = Annotated[int, typer.Option(help="Probes to trace through a model (grad_profile), asked nowhere else.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the suite; default: out/<name of the suite>.")]


@data_app.command()
def biographies(
    out: Out = None,
    people: Annotated[int, typer.Option(help="Number of people.")] = 24,
    texts: Annotated[int, typer.Option(help="Texts per person.")] = 4,
    templates: Annotated[int, typer.Option(help="Wordings per field that the corpus uses.")] = 6,
    order: Annotated[str, typer.Option(help="Order of the fields in a text: fixed or shuffled.")] = "fixed",
    names: Annotated[
        str, typer.Option(help="The full name opens the text (once) or every sentence (always).")
    ] = "once",
    distance: Annotated[int, typer.Option(help="Filler words between a name and what follows it.")] = 0,
    asides: Annotated[int, typer.Option(help="Sentences per text that no probe asks for.")] = 0,
    seed: Annotated[int, typer.Option(help="Decides who the people are.")] = 0,
    asked: Annotated[
        bool, typer.Option("--asked", help="The corpus holds the probes with their answers too: to pretrain a model.")
    ] = False,
    known: Annotated[
        int | None,
        typer.Option(help="Seed of people whom the model knows: to be retained, and none of them in this corpus."),
    ] = None,
) -> None:
    """Make biographies of people who do not exist, with probes in wordings that the texts do not use."""
    from foci.data.biographies import Biographies, suite

    settings = Biographies(people, texts, templates, order, names, distance, asides, seed, asked, known)  # type: ignore[arg-type]
    _write(suite(settings), out)


@data_app.command()
def pairs(
    out: Annotated[Path, typer.Option(help="File to write the pairs to.")] = Path("out/pairs.jsonl"),
    count: Annotated[int, typer.Option(help="Number of pairs.")] = 400,
    seed: Annotated[int, typer.Option(help="Decides what the documents say.")] = 0,
) -> None:
    """Make pairs to train a weigher on: encyclopedic documents of things that do not exist, and later tasks."""
    from foci.data.encyclopedia import write

    file = write(count, seed, out)
    Console().print(f"{count} pairs in {file}", highlight=False, soft_wrap=True)


@data_app.command("lama-ckl")
def lama_ckl(
    path: Annotated[Path, typer.Argument(help="Folder of the published variant.jsonl and invariant_*.jsonl.")],
    out: Out = None,
    model: Annotated[str, typer.Option(help="The model that decides what is to be learned.")] = "smollm2-135m",
    learn: Annotated[int, typer.Option(help="Facts to learn: variant, and the model has no token right.")] = 64,
    retain: Annotated[int, typer.Option(help="Facts to retain: invariant, and the model has all tokens right.")] = 64,
    held_out: Annotated[
        int,
        typer.Option(help="Further facts to retain, and with them the facts to learn in a second wording; 0 = none."),
    ] = 64,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Probes per forward pass; changes speed, not answers.")] = 32,
) -> None:
    """LAMA-ckl, selected for a model: facts that it does not know to learn, facts that it knows to retain."""
    from foci.data.lama_ckl import LamaCkl, convert

    settings = LamaCkl(model, learn, retain, held_out, seed, batch_size)
    console = Console(stderr=True)
    _write(convert(path, settings, lambda told: console.print(told, highlight=False, soft_wrap=True)), out)


@data_app.command()
def temporalwiki(
    paths: Annotated[list[Path], typer.Argument(help="The *_changed.jsonl and *_unchanged.jsonl of a period.")],
    corpus: Annotated[
        list[Path] | None, typer.Option(help="Text of the difference; may be given several times.")
    ] = None,
    out: Out = None,
    held_out: Held = 64,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """TemporalWiki: triples that changed between two dumps to learn, triples that did not to retain."""
    from foci.data.temporalwiki import TemporalWiki, convert

    _write(convert(paths, TemporalWiki(held_out, limit, seed), corpus or []), out)


@data_app.command()
def templama(
    path: Annotated[Path, typer.Argument(help="The published train.jsonl, or its folder.")],
    out: Out = None,
    year: Annotated[int, typer.Option(help="The year that is learned.")] = 2020,
    corpus: Annotated[str, typer.Option(help="Sentences of all facts of the year, or of the changed ones.")] = "all",
    new_only: Annotated[bool, typer.Option("--new-only", help="Only changes that brought a new answer.")] = False,
    held_out: Held = 20,
    limit: Limit = None,
    seed: Seed = 0,
    trace: Trace = 0,
) -> None:
    """TempLAMA: facts of a year whose answer changed to learn, facts whose answer did not to retain."""
    from foci.data.templama import TempLama, convert

    settings = TempLama(year, corpus, new_only, held_out, limit, seed, trace)  # type: ignore[arg-type]
    _write(convert(path, settings), out)


@data_app.command()
def ecbd(
    path: Annotated[Path, typer.Argument(help="A published all_ent_*.json, or its folder.")],
    popular: Annotated[Path | None, typer.Option(help="Popular entities in the same form, to retain.")] = None,
    out: Out = None,
    held_out: Held = 64,
    limit: Limit = None,
    seed: Seed = 0,
    trace: Trace = 0,
) -> None:
    """ECBD: definitions of new entities as corpus, spans of sentences about them to learn."""
    from foci.data.ecbd import Ecbd, convert

    _write(convert(path, Ecbd(held_out, limit, seed, trace), popular), out)


@data_app.command("published-biographies")
def published_biographies(
    path: Annotated[Path, typer.Argument(help="The published biography_synthetic.csv, or its folder.")],
    known: Annotated[Path | None, typer.Option(help="A CSV of people the model knows, to retain.")] = None,
    out: Out = None,
    held_out: Held = 50,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """The published biographies: a CSV with inline tags, five fields a person."""
    from foci.data.published_biographies import PublishedBiographies, convert

    _write(convert(path, PublishedBiographies(held_out, limit, seed), known), out)


def _write(suite: "Suite", out: Path | None) -> None:
    """Writes a suite and prints what it holds, what was left out and why."""
    folder = suite.write(out or Path("out") / suite.name.replace("-", "_"))
    record = suite.record()
    console = Console()
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
