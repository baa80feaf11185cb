"""The commands, thin: each reads its flags, calls one function and prints what it returns."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foci.cli.data import data_app
from foci.cli.inputs import check_run
from foci.cli.pretrain import pretrain_app
from foci.cli.score import score_app
from foci.config.run import Run, dump_run, load_run
from foci.system.signals import Interrupted, stoppable

if TYPE_CHECKING:
    from foci.probes import Probe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(score_app)
app.add_typer(pretrain_app)

Target = Annotated[
    str | None,
    typer.Argument(
        help="A run file (.yaml), a run's folder, or text to learn (a folder, .txt, .md, .jsonl, .parquet)."
    ),
]
Changes = Annotated[list[str] | None, typer.Argument(help="Changes to the run file, such as train.epochs=2.")]
Corpus = Annotated[list[str] | None, typer.Option(help="Text to learn; may be given several times.")]
Model = Annotated[str | None, typer.Option(help="smollm2-135m, a hub id, a model folder or a .gguf file.")]
Out = Annotated[str | None, typer.Option(help="Folder of the run; default: out/<name>.")]


def _version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        print(f"foci {version('foci')}")
        raise typer.Exit
    return asked


@app.callback()
def foci(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Teach a language model new knowledge from a small corpus, and measure what it learned and forgot."""


@app.command()
def learn(
    target: Target = None,
    changes: Changes = None,
    corpus: Corpus = None,
    model: Model = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in this folder stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in this folder.")] = False,
) -> None:
    """Train all arms of a run, probe before and after, write summary.json, report.html and model/."""
    run = _run(target, changes or [], corpus, model, out)
    from foci.learn import run as learning
    from foci.report.terminal import print_table

    console = Console()
    try:
        summary = learning.learn(run, resume=resume, overwrite=overwrite, console=console)
    except Interrupted as stop:
        command = f"foci learn {shlex.quote(str(run.output))} --resume"
        raise Interrupted(stop.signum, f"{stop}; go on with: {command}") from None
    console.print()
    print_table(summary, console)
    console.print(f"\nreport: {run.output / 'report.html'}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def check(
    target: Target = None, changes: Changes = None, corpus: Corpus = None, model: Model = None, out: Out = None
) -> None:
    """Validate a run, print it resolved, estimate its cost, and stop."""
    run = _run(target, changes or [], corpus, model, out)
    from foci.learn.estimate import estimate
    from foci.learn.inputs import material

    console = Console()
    console.print(dump_run(run), markup=False, highlight=False, soft_wrap=True)
    cost = estimate(run, material(run))
    table = Table(box=None, show_header=False)
    memory = "unknown" if cost.memory_mib is None else f"{cost.memory_mib:,.0f} MiB"
    for name, value in {
        "parameters": f"{cost.parameters:,}, {cost.trained:,} of them trained",
        "tokens": f"{cost.tokens_per_epoch:,} in {cost.rows:,} rows, read {cost.tokens:,} in all",
        "updates": f"{cost.updates:,} per arm, {cost.arms} arm{'s' * (cost.arms > 1)}",
        "peak memory": f"about {memory}",
        "time": f"about {_minutes(cost.seconds)}, {_minutes(cost.train_seconds)} of training per arm",
    }.items():
        table.add_row(name, value)
    console.print(table, highlight=False)


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="smollm2-135m, a hub id, a model folder or a .gguf file.")],
    probes: Annotated[
        str | None, typer.Argument(help="Probe file (.jsonl), or 'general' for the facts in foci.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the answers to this .parquet file.")] = None,
    batch_size: Annotated[int, typer.Option(help="Probes per forward pass; changes speed, not answers.")] = 32,
    export_lm_eval: Annotated[
        Path | None, typer.Option(help="Write the probes here as tasks of the lm-evaluation-harness; needs no MODEL.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the tasks in that folder.")] = False,
) -> None:
    """Ask a model the questions of a probe file; or export them: foci probe PROBES --export-lm-eval FOLDER."""
    from foci.probes import general, read_probes

    asks = probes is not None
    file = probes or model
    if not asks and (export_lm_eval is None or out is not None):
        raise ValueError(
            f"what should be asked of which model? Got {model!r} alone; give both: foci probe MODEL PROBES "
            "(to write lm_eval tasks, which needs no model: foci probe PROBES --export-lm-eval FOLDER)"
        )
    asked = read_probes(general.general_facts_path(), "retain") if file == "general" else read_probes(file)
    if export_lm_eval is not None:
        _export(asked, export_lm_eval, Path(file).name, overwrite)
    if asks:
        _ask(model, asked, out, batch_size)


def _export(probes: "list[Probe]", folder: Path, source: str, overwrite: bool) -> None:
    """Writes tasks of the lm-evaluation-harness and says how to run them."""
    from foci.probes.export import export_lm_eval

    name = export_lm_eval(probes, folder, source=source, overwrite=overwrite)
    Console().print(
        f"{len(probes)} probes: {folder}\nlm_eval --include_path {shlex.quote(str(folder))} --tasks {name} --model hf "
        "--model_args pretrained=MODEL,dtype=float32",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _ask(model: str, probes: "list[Probe]", out: Path | None, batch_size: int) -> None:
    """Prints a table of a model's answers, to learn and to retain, by kind, and writes the answers to `out`."""
    from foci import models
    from foci.cli.tables import print_answers
    from foci.probes import answer, binding, write_answers

    loaded = models.load(model)
    answers = answer(loaded.model, loaded.tokenizer, probes, batch_size=batch_size)
    console = Console()
    learned = [probe for probe in probes if probe.role == "learn"]
    print_answers(answers, binding(loaded.model, loaded.tokenizer, learned), console)
    if out is not None:
        write_answers(out, answers)
        console.print(f"answers: {out}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def bench(
    suite: Annotated[Path, typer.Argument(help="A suite file (.yaml): a run file with seeds.")],
    changes: Changes = None,
    workers: Annotated[int, typer.Option(help="Cells that run side by side, each with its share of the threads.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run again what had other settings or files.")] = False,
) -> None:
    """Train all arms with all seeds and compare them in one table; finished cells are never run again."""
    from foci.bench.config import load_suite

    read = load_suite(suite, changes or [])
    check_run(read)
    from foci.bench.run import bench as run_suite
    from foci.cli.tables import print_suite

    console = Console()
    try:
        found = run_suite(read, workers=workers, overwrite=overwrite, console=console)
    except Interrupted as stop:
        raise Interrupted(stop.signum, f"{stop}; the same command goes on where it stopped") from None
    console.print()
    print_suite(found, console)
    console.print(
        f"table: {read.output / 'table.md'}\nreport: {read.output / 'report.html'}", highlight=False, soft_wrap=True
    )


@app.command()
def meta(
    file: Annotated[Path, typer.Argument(help="A meta-training file (.yaml): pairs of a document and a later task.")],
    changes: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the meta-training in its folder.")] = False,
) -> None:
    """Train a weigher that learns which tokens of a document are worth learning from."""
    from foci.meta.config import load_meta

    run = load_meta(file, changes or [])
    from foci.cli.tables import print_meta
    from foci.meta.run import meta as run_meta

    console = Console()
    try:
        found = run_meta(run, resume=resume, overwrite=overwrite, console=console)
    except Interrupted as stop:
        raise Interrupted(stop.signum, f"{stop}; go on with the same command and --resume") from None
    print_meta(found, run.output / "weigher", console)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; default: report.html in the first folder.")] = None,
) -> None:
    """Write one self-contained HTML report of one or more runs."""
    from foci.report import write_report

    Console().print(f"report: {write_report(runs, out or runs[0] / 'report.html')}", highlight=False, soft_wrap=True)


@app.command()
def methods() -> None:
    """List the methods, the question each decides, and its settings."""
    from foci.methods import describe

    console = Console()
    for method in describe():
        shelf = " (experimental)" if method.experimental else ""
        console.print(Text.assemble((method.name, "bold"), f"{shelf}  {' '.join(method.decides)}\n  {method.summary}"))
        for setting, default in method.settings.items():
            console.print(f"  {setting} = {default}", highlight=False, markup=False)


def main() -> None:
    """The entry point: every error a person can mend is one paragraph, without a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        with stoppable():
            app()  # tells what is wrong with flags, and exits, by itself
    except Interrupted as stop:
        print(f"foci: {stop}", file=sys.stderr)
        sys.exit(stop.code)
    except (ValueError, OSError, ArithmeticError, TypeError, ImportError) as error:
        if os.environ.get("FOCI_TRACEBACK"):
            raise
        sys.exit(_told(error))


def _told(error: Exception) -> int:
    """Prints an error and returns the exit status: 2 for input that cannot work, 1 for a run that could not go on."""
    words = error.strerror if type(error).__name__ == "DiskFull" and isinstance(error, OSError) else str(error)
    print(f"foci: {words}", file=sys.stderr)
    return 2 if isinstance(error, ValueError | FileNotFoundError | FileExistsError | ImportError) else 1


def _run(target: str | None, changes: list[str], corpus: list[str] | None, model: str | None, out: str | None) -> Run:
    """Returns the run that flags and arguments describe, with methods and paths that exist."""
    run = _described(target, changes, corpus, model, out)
    check_run(run)
    return run


def _described(
    target: str | None, changes: list[str], corpus: list[str] | None, model: str | None, out: str | None
) -> Run:
    if target is not None and "=" in target and not Path(target).exists():
        changes, target = [target, *changes], None
    if target is not None and _is_run(Path(target)):
        flags = {"model.name": model, "output": out, "corpus.path": corpus}
        run = load_run(target, [*changes, *(f"{key}={json.dumps(value)}" for key, value in flags.items() if value)])
        if Path(target).is_dir() and out is None and run.output.resolve() != Path(target).resolve():
            raise ValueError(
                f"{target} holds a run whose output is {run.output}, which from here is another folder; go to the "
                "directory the run was begun in (and move it back), or begin it anew with --out FOLDER"
            )
        return run
    texts = [text for text in (target, *(corpus or [])) if text]
    if not texts:
        raise ValueError(
            "what should be learned? Got no text; give a run file, a run's folder, or: foci learn my_texts/"
        )
    return Run.of_flags(texts, model, out, changes)


def _is_run(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") or (path / "run.yaml").is_file()


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
