"""The frozen baseline: the answers of the untouched model, before the first update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from foci import models
from foci.config.run import Run
from foci.corpus import read_rows, tokenizer_fingerprint, write_quarantine, write_rows
from foci.corpus.samples import samples
from foci.corpus.telling import left_out
from foci.focus import Context, Row
from foci.learn.earlier import Earlier, read_earlier, write_earlier
from foci.learn.finished import probes_of
from foci.learn.inputs import (
    Material,
    changed_since,
    check_methods_unchanged,
    files_read,
    loaded_model,
    material,
    method_hashes,
    questions_of,
)
from foci.learn.making import rows_with_evidence, write_made
from foci.learn.questions import UNASKED, Questions, is_to_learn
from foci.learn.samples import sample_nll
from foci.probes import Answer, read_answers, write_answers
from foci.system import processes
from foci.system.files import read_json, write_json, write_lines, write_text
from foci.system.inputs import damaged, hashes, noted
from foci.system.run_folder import RUN, RunFolder
from foci.system.words import counted, form


@dataclass(frozen=True)
class Start:
    """The rows, the questions and the frozen baseline, which all arms of a run share."""

    run: Run
    rows: Sequence[Row]
    questions: Questions
    answers: Sequence[Answer]
    texts: dict[str, float | None]
    samples: Sequence[Row]
    sample_nll: Sequence[Sequence[float | None]]
    fingerprint: str
    evidence: Path
    earlier: Earlier | None = None
    tokenizer: str | None = None
    """The fingerprint of the tokenizer; None in a run of an earlier version."""
    untouched: list[models.Loaded] = field(default_factory=list)
    """The model that was asked, for the first arm of this process; `load` takes it out."""


def context_of(start: Start, loaded: models.Loaded, folder: Path) -> Context:
    """Returns the things that offline stages may look at, and the questions that they may not learn from."""
    asked = start.questions
    return Context(
        loaded.model, loaded.tokenizer, start.rows, folder, start.run.seed, asked.prompts(), asked.held_out()
    )


def load(start: Start) -> models.Loaded:
    """Returns the untouched model: the one that was asked, else loaded anew, as an arm changes it.

    Raises ValueError where it is not the one that the run began with.
    """
    if start.untouched:
        return start.untouched.pop()
    loaded = loaded_model(start.run)
    if loaded.fingerprint != start.fingerprint:
        raise ValueError(
            f"model {start.run.model.name} is not the one this run began with (fingerprint {loaded.fingerprint}, "
            f"began with {start.fingerprint}); put the old one back, or start again with --overwrite"
        )
    if start.tokenizer not in (None, tokenizer_fingerprint(loaded.tokenizer)):
        raise ValueError(
            f"the tokenizer of model {start.run.model.name} is not the one this run began with, and its rows were made "
            "with that one; put the old files back, or start again with --overwrite"
        )
    return loaded


def prepared(run: Run, folder: RunFolder, console: Console, *, keep: bool = False) -> tuple[Start, dict[str, Any]]:
    """Returns rows, questions and frozen baseline, made now or read from an earlier process; and corpus.json.

    `keep`: a model that was loaded for it stays in memory, for the first arm. Every process must call it.
    """
    known, untouched = processes.from_first(lambda: _known(folder, run)), list[models.Loaded]()
    if known is None:
        untouched = _write_start(run, folder, console)
        known = read_json(folder.start)
    elif changes := changed_since(run, known.get("inputs")):
        console.print(f"  {changes}", highlight=False, markup=False, soft_wrap=True)
    check_methods_unchanged(run, known.get("methods", {}))
    rows = read_rows(folder.rows)
    held = read_rows(folder.held_out) if folder.held_out.is_file() else []
    earlier = read_earlier(folder)
    own = rows if earlier is None else rows[: earlier.new]
    questions = questions_of(run, own, probes_of(folder.questions), _text_of(folder.text), held)
    answers = folder.baseline / "probes.parquet"
    start = Start(
        run=run,
        rows=rows,
        questions=questions if earlier is None else replace(questions, earlier=earlier.probes),
        answers=read_answers(answers) if answers.exists() else [],
        texts=known["texts"],
        samples=samples(rows, run.seed),
        sample_nll=known["sample_nll"],
        fingerprint=known["model"],
        evidence=folder.evidence,
        earlier=earlier,
        tokenizer=known.get("tokenizer"),
        untouched=untouched if keep else [],
    )
    return start, read_json(folder.corpus)


def _write_start(run: Run, folder: RunFolder, console: Console) -> list[models.Loaded]:
    """Writes rows, questions and baseline; start.json comes last, so that a torn start begins again.

    The first process reads and writes; the others load the model and answer their part of the questions. Returns the
    untouched model; nothing in a run that goes on, which frees it.
    """
    read = _write_inputs(run, folder, console) if processes.is_first() else None
    questions = processes.from_first(lambda: read and read[0].questions)
    loaded = loaded_model(run) if read is None else read[0].loaded
    assert questions is not None
    answers, texts = questions.ask(loaded.model, loaded.tokenizer)
    if read is not None:
        _write_baseline(run, folder, read, answers, texts)
    processes.wait()
    return [loaded] if run.continues is None else []


def _write_inputs(run: Run, folder: RunFolder, console: Console) -> tuple[Material, dict[str, str]]:
    """Reads the inputs and writes rows and questions; returns them, and the hashes of the files."""
    inputs = noted(files_read(run))  # before they are read: what changes from here on is told
    made = material(run, folder)
    _tell_read(run, made, counts := made.corpus.counts(), console)
    write_rows(made.rows, folder.rows)
    _write_held_out(made, folder, console)
    write_quarantine(made.corpus.bad, folder.quarantine)
    write_json(folder.corpus, {**counts, "notes": made.corpus.notes})
    write_lines(folder.questions, [{**vars(probe), "aliases": list(probe.aliases)} for probe in made.questions.probes])
    if made.questions.text is not None:
        write_text(folder.text, made.questions.text)
    write_made(made.made, folder)
    if evidence := rows_with_evidence(made.questions.probes, made.rows):
        write_json(folder.evidence, evidence)
    if made.made is not None:
        console.print(f"  {made.made.words()}", highlight=False, markup=False, soft_wrap=True)
    who = "the untouched model" if made.rehearsal is None else f"the model of {made.rehearsal.before.path}"
    _announce(made.questions, who, console)
    return made, inputs


def _write_baseline(
    run: Run,
    folder: RunFolder,
    read: tuple[Material, dict[str, str]],
    answers: Sequence[Answer],
    texts: dict[str, float | None],
) -> None:
    """Writes the untouched model's answers and what else is known of it."""
    made, inputs = read
    if answers:
        write_answers(folder.baseline / "probes.parquet", answers)
    nll = sample_nll(made.loaded.model, made.loaded.tokenizer, samples(made.rows, run.seed))
    if made.rehearsal is not None:
        nn.Module.to(made.loaded.model, "meta")  # the untouched model takes its place in memory
        write_earlier(made.rehearsal, run, folder, made.questions.probes)
    write_json(
        folder.start,
        {
            "model": made.loaded.fingerprint,
            "texts": texts,
            "sample_nll": nll,
            "methods": method_hashes(run.arms),
            "inputs": inputs,
            "tokenizer": tokenizer_fingerprint(made.loaded.tokenizer),
            "settings": settings_of(run),
            "files": hashes(folder.path, folder.of_start()),
        },
        sealed=True,
    )


def _tell_read(run: Run, made: Material, counts: dict[str, Any], console: Console) -> None:
    """Says what was read and left out; in a run that goes on, what it goes on from."""
    console.print(
        f"{run.model.name} reads {counted(counts['documents'], 'document')} ({counted(counts['rows'], 'row')}, "
        f"{counted(counts['tokens'], 'token')})",
        *left_out(made.corpus, "in quarantine.jsonl"),
        sep="\n  ",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for line in () if made.rehearsal is None else made.rehearsal.told():
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _announce(questions: Questions, who: str, console: Console) -> None:
    """Says how many probes are asked, and where none is to learn."""
    if questions.probes:
        held_out = sum(probe.held_out for probe in questions.probes)
        rest = f", {held_out:,} of them held out" if held_out else ""
        asked = counted(len(questions.probes), "probe")
        console.print(f"baseline: {who} answers {asked}{rest}", highlight=False, markup=False, soft_wrap=True)
    if not any(is_to_learn(probe) for probe in questions.probes):
        console.print(f"no probes to learn: {UNASKED}", highlight=False, markup=False, soft_wrap=True)


def _write_held_out(made: Material, folder: RunFolder, console: Console) -> None:
    """Writes the rows that are not trained on, and says how many they are; does nothing where there are none."""
    folder.held_out.unlink(missing_ok=True)
    if held := made.questions.held_out_rows:
        write_rows(held, folder.held_out)
        words = f"{counted(len(held), 'row')} {form(len(held), 'is', 'are')} held out, to decide when training stops"
        console.print(f"  {words}", highlight=False)


def _known(folder: RunFolder, run: Run) -> dict[str, Any] | None:
    """Returns start.json; None where the run did not start.

    Raises ValueError where it, or another file that was written before training, is no longer what was written.
    """
    known = read_json(folder.start)
    if known is None:
        return None
    if not isinstance(known, dict) or not {"model", "texts", "sample_nll"} <= known.keys():
        raise ValueError(
            f"{folder.start} is damaged: got {str(known)[:60]!r}; put the whole file back, or use --overwrite"
        )
    if other := _other_settings(known.get("settings"), settings_of(run)):
        raise ValueError(
            f"{folder.config} is not as it was when this run began: {', '.join(other)} was changed, or the file is "
            "damaged; put the old file back, or start again with --overwrite"
        )
    if wrong := damaged(folder.path, known.get("files")):
        raise ValueError(
            f"{folder.path / wrong[0]} is damaged: it is not what this run wrote (its hash in {folder.start.name} "
            "differs); put the whole file back, or start again with --overwrite"
        )
    return known


def settings_of(run: Run) -> dict[str, Any]:
    """Returns the settings as plain data, without the folder, which may be moved."""
    return run.model_dump(mode="json", exclude={"output"})


def _other_settings(begun: object, now: Mapping[str, Any]) -> list[str]:
    """Returns the keys whose values are no longer those that a run began with.

    `begun` is what `settings_of` returned then. Keys that it lacks came with a later version of foci and are not
    compared, nor are those that may differ (`RUN.free`); what is no such mapping (of an earlier version) names no key.
    """
    found = []
    for name, before in (begun if isinstance(begun, Mapping) else {}).items():
        after = now.get(name, before)
        if name != "arms" and isinstance(before, Mapping) and isinstance(after, Mapping):
            changed = [f"{name}.{key}" for key, value in before.items() if after.get(key, value) != value]
            found += [key for key in changed if key not in RUN.free]
        elif after != before:
            found.append(name)
    return found


def _text_of(path: Path) -> str | None:
    """Returns the text of a file; None where there is no file."""
    return path.read_text(encoding="utf-8") if path.is_file() else None
