"""The commands: each reads its flags, calls one function and prints the results."""

import json
import logging
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from foci.cli.advise import advise_app
from foci.cli.chat import chat_app
from foci.cli.data import data_app
from foci.cli.endings import say, speaks, told
from foci.cli.export import export_app
from foci.cli.init import init_app
from foci.cli.inputs import check_model, check_run
from foci.cli.pretrain import pretrain_app
from foci.cli.processes import check_processes
from foci.cli.runs import checked_run, run_from, texts_and_changes
from foci.cli.score import score_app
from foci.cli.slide import slide_app
from foci.cli.study import study_app
from foci.cli.watch import watch_app
from foci.config.run import dump_run
from foci.system.files import existing
from foci.system.signals import Interrupted, stoppable
from foci.system.terminal import Terminal
from foci.system.words import counted

if TYPE_CHECKING:
    from foci.probes import Probe

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(chat_app)
app.add_typer(export_app)
app.add_typer(init_app)
app.add_typer(advise_app)
app.add_typer(score_app)
app.add_typer(slide_app)
app.add_typer(study_app)
app.add_typer(watch_app)
app.add_typer(pretrain_app)

Target = Annotated[
    str | None,
    typer.Argument(
        help="Run file (.yaml), folder of a run, or text to learn (a folder, .txt, .md, .jsonl, .pdf, .docx, ...)."
    ),
]
Changes = Annotated[list[str] | None, typer.Argument(help="Changes of single keys, such as train.epochs=2.")]
Words = Annotated[
    list[str] | None, typer.Argument(help="Further texts, and changes of single keys, such as train.epochs=2.")
]
Corpus = Annotated[list[str] | None, typer.Option(help="Text to learn; can be given several times.")]
Model = Annotated[str | None, typer.Option(help="Model: smollm2-135m, a hub id, a folder or a .gguf file.")]
Out = Annotated[str | None, typer.Option(help="Folder to write the run to; default: out/<name>.")]


def _print_version(asked: bool) -> bool:
    """Prints the version and ends the command, where it is asked for."""
    if asked:
        from importlib.metadata import version

        Terminal().print(f"foci {version('foci')}")
        raise typer.Exit
    return asked


@app.callback()
def foci(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Teach a language model new knowledge from your own texts, and measure what it learned and what it forgot."""


@app.command()
def learn(  # noqa: PLR0913, PLR0917 - a command may have many flags
    target: Target = None,
    changes: Words = None,
    corpus: Corpus = None,
    model: Model = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in this folder where it stopped.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run in this folder and start again.")
    ] = False,
    before: Annotated[
        str | None,
        typer.Option("--from", help="Folder of a finished run: its model is trained further, with its settings."),
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Arm of that run; default: the one that learned and retained the most.")
    ] = None,
) -> None:
    """Train a model on new texts; get the model, a table of what it learned and forgot, and a report.

    On several GPUs: torchrun --nproc-per-node 2 -m foci learn my_texts/

    By default plain fine-tuning is compared with `focused`, a composite of methods. Probes are asked before and after
    training; without probes.learn they are made from the texts by rule (English).

    To go on with further texts: foci learn new_texts/ --from out/my_texts
    """
    if before is None and arm is not None:
        raise ValueError(f"--arm says which arm of a finished run goes on, got {arm!r} alone; give --from RUN too")
    if before is not None:
        if model is not None:
            raise ValueError(f"--from goes on with the model of {before}, got --model {model}; leave --model out")
        texts, changes = texts_and_changes(target, changes or [], corpus)
        run = run_from(before, arm, texts, out, changes)
    else:
        run = checked_run(target, changes or [], corpus, model, out, anew=overwrite)
    from foci.learn import run as learning

    console = Terminal()
    try:
        summary = learning.learn(run, resume=resume, overwrite=overwrite, console=console)
    except Interrupted as stop:
        command = f"foci learn {shlex.quote(str(run.output))} --resume"
        raise stop.going_on(f"go on with: {command}") from None
    _tell(summary, run.output, console)


def _tell(summary: dict[str, Any], output: Path, console: Console) -> None:
    """Prints the table of a run, and where its model and its report are."""
    from foci.report.measure import best_arm
    from foci.report.terminal import print_table

    console.print()
    print_table(summary, console)
    arms, saved = summary["arms"], output / "model"
    of_arm = f" (arm {best_arm(arms)})" if len(arms) > 1 else ""
    told = f"model:  {saved}{of_arm}\n" if saved.is_dir() else ""
    console.print(f"\n{told}report: {output / 'report.html'}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def check(
    target: Annotated[
        str | None, typer.Argument(help="Run file or suite file (.yaml), folder of a run, or text to learn.")
    ] = None,
    changes: Words = None,
    corpus: Corpus = None,
    model: Model = None,
    out: Out = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of processes that torchrun will start; memory is given per process.")
    ] = 1,
) -> None:
    """Show all settings of a run or a suite, and what it takes: memory, speed, time and disk. Nothing is kept."""
    from foci.bench.config import kind_of

    run = checked_run(target, changes or [], corpus, model, out, kind_of, anew=True)
    from foci.cli.cost import print_cost
    from foci.learn.estimate import estimate
    from foci.learn.inputs import material

    console = Terminal()
    plainly = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    made = material(run, tell=plainly, begin=lambda: plainly(dump_run(run)))
    plainly("", *made.told(console.width), "", sep="\n")
    print_cost(run, estimate(run, made, processes=processes), processes, console)


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="Model: smollm2-135m, a hub id, a folder or a .gguf file.")],
    probes: Annotated[
        str | None, typer.Argument(help="Probe file (.jsonl), or 'general' for the general facts that come with foci.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File (.parquet) to write the answers to.")] = None,
    batch_size: Annotated[int, typer.Option(help="Probes per forward pass; changes the speed alone.")] = 32,
    export_lm_eval: Annotated[
        Path | None,
        typer.Option(help="Folder to write the probes to, as tasks of the lm-evaluation-harness; needs no MODEL."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the tasks in this folder.")] = False,
) -> None:
    """Ask a model the questions of a probe file; get its accuracy, with controls.

    To export the questions instead: foci probe PROBES --export-lm-eval FOLDER.
    """
    asks = probes is not None
    file = probes or model
    if not asks and (export_lm_eval is None or out is not None):
        raise ValueError(
            f"what should be asked of which model? Got {model!r} alone; give both: foci probe MODEL PROBES "
            "(to write lm_eval tasks, which needs no model: foci probe PROBES --export-lm-eval FOLDER)"
        )
    if asks:
        check_model(model)
    if file != "general":
        existing(file, "probe file", "give the path of a JSONL file with one probe a line")
    from foci.probes import general, read_probes

    asked = read_probes(general.general_facts_path(), "retain") if file == "general" else read_probes(file)
    if export_lm_eval is not None:
        _export(asked, export_lm_eval, Path(file).name, overwrite)
    if asks:
        _ask(model, asked, out, batch_size)


def _export(probes: "list[Probe]", folder: Path, source: str, overwrite: bool) -> None:
    """Writes tasks of the lm-evaluation-harness and says how to run them."""
    from foci.probes.export import export_lm_eval

    name = export_lm_eval(probes, folder, source=source, overwrite=overwrite)
    Terminal().print(
        f"{counted(len(probes), 'probe')}: {folder}\nlm_eval --include_path {shlex.quote(str(folder))} --tasks {name} "
        "--model hf "
        "--model_args pretrained=MODEL,dtype=float32",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _ask(model: str, probes: "list[Probe]", out: Path | None, batch_size: int) -> None:
    """Prints a table of a model's answers, to learn and to retain, by kind, and writes the answers to `out`."""
    from foci import models
    from foci.cli.tables import print_answers
    from foci.probes import answer, binding, write_answers
    from foci.system import processes

    console = Terminal()
    with processes.together():
        loaded = models.load(model)
        net, tokenizer = loaded.model, loaded.tokenizer
        answers = processes.shared_out(lambda some: answer(net, tokenizer, some, batch_size=batch_size), probes)
        if not processes.is_first():
            return
        print_answers(answers, binding(net, tokenizer, [probe for probe in probes if probe.role == "learn"]), console)
    if out is not None:
        write_answers(out, answers)
        console.print(f"answers: {out}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def bench(
    suite: Annotated[Path, typer.Argument(help="Suite file (.yaml): a run file with seeds.")],
    changes: Changes = None,
    out: Annotated[str | None, typer.Option(help="Folder to write the suite to; default: the file's output.")] = None,
    workers: Annotated[
        int, typer.Option(help="Cells (an arm with a seed) to run side by side; they share the threads.")
    ] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Run cells again that were run with other settings or files.")
    ] = False,
) -> None:
    """Compare arms over several seeds; get one table with intervals.

    Run the same command again to continue: finished cells are kept.
    """
    from foci.bench.config import load_suite

    read = load_suite(suite, [*(changes or []), *([f"output={json.dumps(out)}"] if out else [])])
    check_run(read)
    from foci.bench.run import bench as run_suite
    from foci.cli.tables import print_suite

    console = Terminal()
    try:
        found = run_suite(read, workers=workers, overwrite=overwrite, console=console)
    except Interrupted as stop:
        raise stop.going_on("the same command goes on where it stopped") from None
    console.print()
    print_suite(found, console)
    console.print(
        f"table: {read.output / 'table.md'}\nreport: {read.output / 'report.html'}", highlight=False, soft_wrap=True
    )


@app.command()
def meta(
    file: Annotated[
        Path, typer.Argument(help="Meta-training file (.yaml), which names pairs of a document and a later task.")
    ],
    changes: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue where the meta-training stopped.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the meta-training in its folder and start again.")
    ] = False,
) -> None:
    """Train a weigher: a small model that says which tokens of a document are worth learning."""
    from foci.meta.config import load_meta

    run = load_meta(file, changes or [])
    check_model(run.model.name)
    for path in run.pairs.path:
        existing(path, "pairs", "check pairs.path")
    from foci.cli.tables import print_meta
    from foci.meta.run import meta as run_meta

    console = Terminal()
    try:
        found = run_meta(run, resume=resume, overwrite=overwrite, console=console)
    except Interrupted as stop:
        raise stop.going_on("go on with the same command and --resume") from None
    print_meta(found, run.output / "weigher", console)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; default: report.html in the first folder.")
    ] = None,
) -> None:
    """Write one HTML page that shows one or more runs, with all figures inside."""
    from foci.report.write import write_report

    Terminal().print(f"report: {write_report(runs, out or runs[0] / 'report.html')}", highlight=False, soft_wrap=True)


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, or a class of your own (./mine.py:Mine); default: all methods.")
    ] = None,
) -> None:
    """List the methods; or show one method: what it does, its source, its settings, and how a run file names it."""
    from foci.cli import methods as shown

    shown.print_methods(Terminal()) if name is None else shown.print_method(name, Terminal())


def main() -> None:
    """Runs the command line; prints an error that a person can mend as one paragraph, without a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads of torch that wait for work leave their core to other programs. Read once, when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # PEFT imports bitsandbytes where it is installed, which tells of a kernel that it did not find
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        with stoppable():
            check_processes(sys.argv[1:])
            app()  # tells what is wrong with flags, and exits, by itself
    except Interrupted as stop:
        if not stop.is_silent and speaks():
            say(str(stop))
        sys.exit(stop.code)
    except Exception as error:
        if os.environ.get("FOCI_TRACEBACK"):
            raise
        sys.exit(told(error) if speaks() else 1)
