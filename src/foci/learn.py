"""A run, from the run file to the report: corpus -> rows -> baseline -> arms -> summary."""

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from foci import __version__, data, models
from foci.arm import Arm, Start, plan_of
from foci.combine import block_scales, check_columns, head_targets
from foci.config import Run
from foci.corpus import Corpus, CorpusError, read_corpus, read_rows, write_quarantine, write_rows
from foci.focus import Plan, Prepares, Row
from foci.folder import RunFolder, opened, read_json, read_lines, write_json, write_lines
from foci.measure import HELD_OUT, Questions, chosen, row_nll, samples
from foci.probes import Probe, read_answers, read_probes, write_answers
from foci.report import write_report
from foci.stopping import stoppable

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "pyarrow")


def learn(run: Run, *, resume: bool = False, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Runs all arms and writes the run's folder; returns the summary (also in summary.json).

    Raises ValueError for input that cannot work, FileExistsError for a folder that is not free, `Interrupted` after
    a signal (the checkpoint is written), `NonFinite` and `DiskFull` where training cannot go on.
    """
    console = console or Console()
    with stoppable() as stop, opened(run, resume=resume, overwrite=overwrite) as folder:
        start, corpus = prepared(run, folder, console)
        summary = read_json(folder.summary) or _head(run, corpus)
        for name in run.arms:
            summary["arms"][name] = Arm(name, start, folder.arm(name), console, stop).result()
            write_json(folder.summary, summary)
        with reporting(folder, console):
            write_report([folder.path], folder.report)
    return summary


@dataclass(frozen=True)
class Material:
    """What a run reads, checked: the model, the rows, the questions."""

    loaded: models.Loaded
    rows: Sequence[Row]
    corpus: Corpus
    questions: Questions


def prepared(run: Run, folder: RunFolder, console: Console) -> tuple[Start, dict[str, Any]]:
    """Rows, questions and the frozen baseline: made, or read where an earlier process made them."""
    known = read_json(folder.start)
    if known is None:
        _make(run, folder, console)
        known = read_json(folder.start)
    rows = read_rows(folder.rows)
    questions = _questions(
        run, rows, [Probe(**_probe(line)) for line in read_lines(folder.questions)], _read(folder.text)
    )
    answers = folder.baseline / "probes.parquet"
    start = Start(
        run=run,
        rows=rows,
        questions=questions,
        answers=read_answers(answers) if answers.exists() else [],
        texts=known["texts"],
        samples=samples(rows, run.seed),
        sample_nll=known["sample_nll"],
        fingerprint=known["model"],
    )
    return start, read_json(folder.corpus)


def material(run: Run, folder: RunFolder | None = None) -> Material:
    """Reads and checks everything a run needs; with a folder, bad lines are written to its quarantine."""
    loaded = models.load(run.model.name, dtype=run.model.dtype, trust_remote_code=run.model.trust_remote_code)
    if isinstance(loaded.model, models.KAdapterModel):
        raise ValueError(  # noqa: TRY004
            f"model {run.model.name} has a k_adapter, which cannot be merged into its weights, so that a run cannot "
            "start from it: name its base model, or train this one on with FocusTrainer"
        )
    if run.corpus.max_length > loaded.max_length:
        raise ValueError(
            f"corpus.max_length is {run.corpus.max_length}, but {run.model.name} reads at most {loaded.max_length} "
            "tokens; lower corpus.max_length"
        )
    try:
        corpus = read_corpus(
            run.corpus.path,
            loaded.tokenizer,
            max_length=run.corpus.max_length,
            max_bad=run.corpus.max_bad,
            text_field=run.corpus.text_field,
        )
    except CorpusError as error:
        if folder is not None:
            write_quarantine(error.bad, folder.quarantine)
        raise
    for name in run.arms:
        plan = plan_of(run, name)
        ready = Plan([m for m in plan.methods if not isinstance(m, Prepares)])
        check_columns(ready, corpus.rows)
        head_targets(plan, loaded.model, block_scales(ready, loaded.model))
    return Material(loaded, corpus.rows, corpus, _questions(run, corpus.rows, _probes(run), _page(run)))


def _make(run: Run, folder: RunFolder, console: Console) -> None:
    """Writes rows, questions and baseline; start.json is last, so that a torn start begins again."""
    made = material(run, folder)
    counts = made.corpus.counts()
    console.print(
        f"{run.model.name} reads {_counted(counts['documents'], 'document')} ({_counted(counts['rows'], 'row')}, "
        f"{counts['tokens']:,} tokens)"
        + "".join(f", {_counted(counts[k], *words)}" for k, words in _TOLD.items() if counts[k]),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    write_rows(made.rows, folder.rows)
    write_quarantine(made.corpus.bad, folder.quarantine)
    write_json(folder.corpus, counts)
    write_lines(folder.questions, [{**vars(probe), "aliases": list(probe.aliases)} for probe in made.questions.probes])
    if made.questions.text is not None:
        folder.text.write_text(made.questions.text, encoding="utf-8")
    if made.questions.probes:
        console.print(f"baseline: {len(made.questions.probes)} probes to the untouched model", highlight=False)
    answers, texts = made.questions.ask(made.loaded.model, made.loaded.tokenizer)
    if answers:
        write_answers(folder.baseline / "probes.parquet", answers)
    nll = row_nll(made.loaded.model, made.loaded.tokenizer, samples(made.rows, run.seed))
    write_json(folder.start, {"model": made.loaded.fingerprint, "texts": texts, "sample_nll": nll})


_TOLD = {
    "duplicates": ("duplicate", "left out"),
    "quarantined": ("bad line", "in quarantine.jsonl"),
    "skipped": ("file", "of unknown kind left out"),
}


def _counted(count: int, noun: str, rest: str = "") -> str:
    return f"{count:,} {noun}{'s' * (count != 1)} {rest}".strip()


def _probes(run: Run) -> list[Probe]:
    """The probes of the run file; ids are unique within a role."""
    found: list[Probe] = []
    if run.probes.learn is not None:
        found += read_probes(run.probes.learn, "learn")
    if run.probes.retain == "general":
        found += read_probes(data.general_facts_path(), "retain")
    elif run.probes.retain is not None:
        found += read_probes(run.probes.retain, "retain")
    if run.probes.held_out is not None:
        found += [replace(probe, id=HELD_OUT + probe.id) for probe in read_probes(run.probes.held_out)]
    return found


def _probe(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "aliases": tuple(line["aliases"])}


def _page(run: Run) -> str | None:
    if run.probes.text is None:
        return None
    if run.probes.text == "general":
        return data.general_text()
    path = Path(run.probes.text)
    if not path.is_file():
        raise FileNotFoundError(f"probes.text: there is no file {path}; name a text file, 'general' or null")
    return path.read_text(encoding="utf-8-sig")


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _questions(run: Run, rows: Sequence[Row], probes: Sequence[Probe], page: str | None) -> Questions:
    text_rows = chosen(rows, run.seed) if run.probes.corpus_text else ()
    return Questions(tuple(probes), page, text_rows, run.probes.batch_size)


def _head(run: Run, corpus: dict[str, Any]) -> dict[str, Any]:
    """What summary.json says beside the arms."""
    return {
        "foci": __version__,
        "name": run.name,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": run.model.name,
        "seed": run.seed,
        "machine": machine(),
        "versions": versions(),
        "corpus": corpus,
        "arms": {},
    }


def machine() -> dict[str, Any]:
    """What the run was computed on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Installed versions of what decides the numbers."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def reporting(folder: RunFolder, console: Console) -> Iterator[None]:
    """A report that cannot be drawn must not cost the run: the reason is told, the summary stands."""
    try:
        yield
    except (ValueError, OSError) as error:
        words = f"the report could not be written ({error}); try again with: foci report {folder.path}"
        console.print(words, markup=False, soft_wrap=True)
