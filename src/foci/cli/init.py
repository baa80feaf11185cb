"""The command `foci init`: writes a commented run file for somebody's own text."""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from foci.cli.inputs import check_model
from foci.config.commented import arms_of, run_file
from foci.config.run import MADE, Run, of_settings
from foci.system.files import existing, write_text
from foci.system.terminal import Terminal

init_app = typer.Typer()

Folder = Annotated[str, typer.Argument(help="Text to learn: a folder or a file.")]
FileOption = Annotated[Path | None, typer.Option("--file", help="Run file to write; default: NAME_OF_FOLDER.yaml.")]
Model = Annotated[str | None, typer.Option(help="Model: smollm2-135m, a hub id, a folder or a .gguf file.")]
Questions = Annotated[
    str | None, typer.Option(help="Probe file (.jsonl) with questions of yours; default: made from the text.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the text; default: 4.")]
Compare = Annotated[
    bool | None,
    typer.Option("--compare/--no-compare", help="Compare with plain fine-tuning, which costs as much again."),
]


@init_app.command()
def init(
    folder: Folder, file: FileOption = None, model: Model = None, questions: Questions = None, epochs: Epochs = None,
    compare: Compare = None,
) -> None:  # fmt: skip
    """Write a run file for a folder of texts, with a comment above each key.

    On a terminal it asks for what the flags leave open; elsewhere defaults are taken. An existing file is never
    replaced. Example: foci init my_texts/ --epochs 8
    """
    existing(folder, "text", "name a folder or a file with the text to learn")
    count = _readable(Path(folder))
    target = file or Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '-', Path(folder).resolve().stem).strip('-.') or 'run'}.yaml")
    _check_free(target)
    answers = _answers(model, questions, epochs, compare)
    if epochs is None and answers["epochs"] != ASKED["epochs"][1]:  # on a terminal
        epochs = answers["epochs"]
    settings = {
        "model.name": answers["model"],
        "corpus.path": folder,
        "probes.learn": answers["questions"],
        "adapter.type": "lora",
        "train.epochs": answers["epochs"],
        "train.least_steps": of_settings({"corpus": {"path": folder}, **_length(epochs)}).train.least_steps,
        "train.batch_size": 16,
        "train.learning_rate": 1e-3,
        "arms": arms_of(*(("plain", "focused") if answers["compare"] else ("focused",))),
    }
    run = _checked(settings)
    head = [
        f"A run of foci: {run.model.name} learns {folder}.",
        f"When this was written, foci could read {count:,} file{'s' * (count != 1)} there.",
        "",
        f"  foci check {shlex.quote(str(target))}    says what it costs, and prints every key with its value",
        f"  foci learn {shlex.quote(str(target))}    trains, and writes {run.output}/report.html",
        "",
        "Lines in comments show further keys with their defaults. Paths are relative to the folder in which you type",
        "the command.",
    ]
    write_text(target, run_file(settings, head))
    Terminal().print(
        f"wrote {target}\nsee what it costs: foci check {shlex.quote(str(target))}\n"
        f"train: foci learn {shlex.quote(str(target))}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _length(epochs: int | None) -> dict[str, Any]:
    """Returns the length of a run as its file would say it; nothing where none was named."""
    return {} if epochs is None else {"train": {"epochs": epochs}}


def _checked(settings: dict[str, Any]) -> Run:
    """Returns the run that the settings make. Raises ValueError where the loader would refuse them."""
    raw: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if key:
            raw.setdefault(section, {})[key] = value
        else:
            raw[section] = value
    return of_settings(raw)


def _readable(path: Path) -> int:
    """Returns how many files foci can read. Raises ValueError where there is none."""
    from foci.corpus.documents import files_below, readable

    found = [file for file in (files_below(path) if path.is_dir() else [path]) if readable(file)]
    if not found:
        there = sorted({file.suffix or file.name for file in files_below(path)})[:5] if path.is_dir() else [path.name]
        raise ValueError(
            f"{path} holds no file that foci reads, got {', '.join(there) or 'nothing'}; foci reads .txt, .md, .jsonl, "
            ".pdf, .docx, .html and others"
        )
    return len(found)


def _check_free(target: Path) -> None:
    """Raises where the run file could not be written: it is there, is no YAML by its name, or has no folder."""
    if target.suffix not in (".yaml", ".yml"):
        raise ValueError(f"a run file ends in .yaml, got {target}; name another one with --file")
    if target.exists():
        raise FileExistsError(f"{target} is there already and is never replaced; name another one with --file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent}; make it, or name another with --file")


def _answers(model: str | None, questions: str | None, epochs: int | None, compare: bool | None) -> dict[str, Any]:
    """Returns what the flags say; what they leave open is asked on a terminal, else the default."""
    asks = sys.stdin.isatty()
    given = {"model": model, "questions": questions, "epochs": epochs, "compare": compare}
    found = {name: _ask(name) if value is None and asks else value for name, value in given.items()}
    defaults = {name: default for name, (_, default, _) in ASKED.items()}
    found = {name: defaults[name] if value is None else value for name, value in found.items()}
    for name, (_, _, check) in ASKED.items():
        check(found[name])
    return found


def _ask(name: str) -> Any:
    """Asks one question until the answer can be used; an empty answer is the default."""
    words, default, check = ASKED[name]
    while True:
        said = typer.confirm(words, default=True) if name == "compare" else typer.prompt(words, default=default)
        try:
            value = int(said) if name == "epochs" else said
            check(value)
        except (ValueError, OSError) as error:
            typer.echo(f"  {error}")
        else:
            return value


def _check_questions(path: str) -> None:
    if path != MADE:
        there = existing(path, "questions", "give a probe file (.jsonl), or 'made' for questions made from the text")
        if there.suffix not in (".jsonl", ".json"):
            raise ValueError(f"questions {path}: expected a probe file (.jsonl); name one, or 'made'")


def _check_epochs(epochs: int) -> None:
    if epochs < 1:
        raise ValueError(f"expected at least 1 pass over the text, got {epochs}; give a whole number")


ASKED: dict[str, tuple[str, Any, Callable[[Any], None]]] = {
    "model": ("Which model shall learn (smollm2-135m, a hub id, a folder)?", "smollm2-135m", check_model),
    "questions": (
        "A file with questions of yours, or 'made' for questions made from the text?",
        MADE,
        _check_questions,
    ),
    "epochs": ("How many passes over the text?", 4, _check_epochs),
    "compare": ("Compare with plain fine-tuning (costs as much again)?", True, lambda _: None),
}
"""By name: the question, the default, and what refuses an answer."""
