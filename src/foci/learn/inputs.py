"""Reads and checks the inputs of a run: model, rows, questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foci import models
from foci.config.run import MADE, Run
from foci.corpus import Corpus, CorpusError, Reading, read_corpus, tokenizer_fingerprint, write_quarantine
from foci.corpus.documents import files_below, readable
from foci.corpus.telling import files_told, rows_told, told
from foci.focus import Method, Plan, Prepares, Row, WeighsTokens
from foci.learn.earlier import Rehearsal, new_rows, rehearsal
from foci.learn.finished import asked_files, finished
from foci.learn.fitting import packs_of
from foci.learn.making import made_probes
from foci.learn.offline import check_models, check_order, plan_of
from foci.learn.questions import Questions, random_rows
from foci.methods import outside, roles_of
from foci.models.forward import check_ids
from foci.probes import Probe, general, hold_out, read_probes
from foci.probes.making.make import Made
from foci.rows import chosen, ids_of, joined
from foci.seeds import drawn_places
from foci.system.files import sha256
from foci.system.inputs import differences, noted
from foci.system.run_folder import RunFolder
from foci.system.texts import read_text
from foci.training.passes import check_packs
from foci.training.plan import block_scales, check_columns, check_weighed, head_targets

Arms = Mapping[str, Sequence[Any]]
"""The methods of each arm, as a run file has them."""


@dataclass(frozen=True)
class Material:
    """The checked inputs of a run: the model, the rows, the questions."""

    loaded: models.Loaded
    rows: Sequence[Row]
    corpus: Corpus
    questions: Questions
    made: Made | None = None
    rehearsal: Rehearsal | None = None

    def told(self, width: int = 80) -> list[str]:
        """Returns lines: what was left out, a few rows, and which probes were made.

        Rows are wrapped to `width` characters.
        """
        return [
            *told(self.corpus, listing=False),
            "",
            *rows_told(self.corpus.rows, self.loaded.tokenizer, width),
            *([] if self.rehearsal is None else ["", *self.rehearsal.told()]),
            *([] if self.made is None else ["", self.made.words(), *self.made.examples()]),
        ]


def material(
    run: Run,
    folder: RunFolder | None = None,
    tell: Callable[[str], object] | None = None,
    begin: Callable[[], object] | None = None,
) -> Material:
    """Reads and checks the inputs of a run; with a folder, writes bad lines to its quarantine.

    `tell` is given lines on the files of the corpus, one by one, as soon as they are read; before them `begin` is
    called, unless the corpus is refused. Raises ValueError for input that
    cannot work, FileNotFoundError for a file that is not there.
    """
    before = finished(run)
    loaded = loaded_model(run)
    if before is not None:
        before.check_tokenizer(tokenizer_fingerprint(loaded.tokenizer))
    if run.corpus.max_length > loaded.max_length:
        raise ValueError(
            f"corpus.max_length is {run.corpus.max_length}, but {run.model.name} reads at most {loaded.max_length} "
            "tokens; lower corpus.max_length"
        )
    corpus = _read(run, loaded, folder, tell, begin)
    check_ids(loaded.model, corpus.rows)
    for name in run.arms:
        methods = plan_of(run, name).methods
        check_models(methods, loaded.model)  # type: ignore[arg-type]
        check_weighed(methods, partial(_weigh, methods))
        check_order(methods)
        known = Plan([m for m in methods if not isinstance(m, Prepares)])
        check_columns(known, corpus.rows)
        head_targets(known, loaded.model, block_scales(known, loaded.model))
        check_packs(methods, packs_of(run.train, run.corpus.max_length))
    rows, held = _split(run, corpus.rows if before is None else new_rows(before, corpus.rows))
    made = made_probes(run, loaded, rows)
    probes = _probes(run, () if made is None else made.probes)
    questions = questions_of(run, rows, probes, _text_to_retain(run), held)
    if before is None:
        return Material(loaded, rows, corpus, questions, made)
    old = rehearsal(before, run, rows, len(corpus.rows) - len(rows) - len(held))
    questions = replace(questions, earlier=tuple(before.probes()))
    return Material(loaded, joined(rows, old.rehearsed), corpus, questions, made, old)


def _weigh(methods: Sequence[Method]) -> bool:
    """Returns whether one of the methods weighs tokens, or will when it is prepared."""
    return any(WeighsTokens in roles_of(type(method)) for method in methods)


def _read(
    run: Run,
    loaded: models.Loaded,
    folder: RunFolder | None,
    tell: Callable[[str], object] | None,
    begin: Callable[[], object] | None,
) -> Corpus:
    """Reads the corpus, and tells its files; see `material`."""
    try:
        corpus = corpus_of(run, loaded)
    except CorpusError as error:
        if folder is not None:
            write_quarantine(error.bad, folder.quarantine)
        if tell is not None:
            for line in files_told(error):
                tell(line)
        raise
    if begin is not None:
        begin()
    if tell is not None:
        for line in files_told(corpus):
            tell(line)
    return corpus


def loaded_model(run: Run) -> models.Loaded:
    """Loads the model as it is before the first update; its tokenizer has the run's chat template, if it names one.

    That is the untouched model, or in a run that goes on the trained model of the run before.
    """
    before = finished(run)
    loaded = models.load_configured(run.model, None if before is None else str(before.model))
    if run.corpus.chat_template is not None:
        path = Path(run.corpus.chat_template)
        if not path.is_file():
            raise FileNotFoundError(f"corpus.chat_template: there is no file {path}; name a file with a Jinja template")
        loaded.tokenizer.chat_template = read_text(path, "corpus.chat_template: the file")
    return loaded


def _split(run: Run, rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Returns the rows to train on, and the held-out ones, chosen by the seed and their ids.

    Raises ValueError where a share is to be held out of a single row.
    """
    if not run.corpus.held_out_share:
        return rows, []
    if len(rows) < 2:
        raise ValueError(
            f"corpus.held_out_share is {run.corpus.held_out_share:g}, but the corpus has {len(rows)} row; give "
            "probes.learn or probes.held_out to judge by, lower corpus.max_length, or leave out train.patience"
        )
    count = min(max(1, round(run.corpus.held_out_share * len(rows))), len(rows) - 1)
    order = drawn_places((f"held out/{row_id}" for row_id in ids_of(rows)), run.seed)
    held, trained = np.sort(order[:count]), np.sort(order[count:])
    return chosen(rows, trained), chosen(rows, held)


def corpus_of(run: Run, loaded: models.Loaded) -> Corpus:
    """Reads the corpus as the run file says. Raises ValueError and FileNotFoundError as `read_corpus` does."""
    settings = run.corpus
    return read_corpus(
        settings.path,
        loaded.tokenizer,
        max_length=settings.max_length,
        max_bad=settings.max_bad,
        text_field=settings.text_field,
        reading=Reading(settings.loss, settings.control_words),
    )


def _probes(run: Run, made: Sequence[Probe]) -> list[Probe]:
    """Returns the probes of the run file and those that were made.

    Ids are unique among probes to learn and among probes to retain.
    """
    found: list[Probe] = []
    if run.probes.learn not in (None, MADE):
        found += read_probes(run.probes.learn, "learn")
    if run.probes.retain == "general":
        found += read_probes(general.general_facts_path(), "retain")
    elif run.probes.retain is not None:
        found += read_probes(run.probes.retain, "retain")
    if run.probes.held_out is not None:
        found += [
            replace(probe, id=f"held_out/{probe.id}", held_out=True) for probe in read_probes(run.probes.held_out)
        ]
    return [*made, *hold_out(found, run.probes.held_out_share, run.seed)]


def _text_to_retain(run: Run) -> str | None:
    """Returns the text whose bits per byte are measured; None where the run file names none."""
    if run.probes.text is None:
        return None
    if run.probes.text == "general":
        return general.general_text()
    path = Path(run.probes.text)
    if not path.is_file():
        raise FileNotFoundError(f"probes.text: there is no file {path}; name a text file, 'general' or null")
    return read_text(path, "probes.text: the file")


def files_read(run: Run) -> list[Path]:
    """Returns the files that a run reads text from: those of its corpus that are there, and its probes."""
    found: list[Path] = []
    for path in run.corpus.path:
        if Path(path).exists():
            found += filter(readable, files_below(Path(path)) if Path(path).is_dir() else [Path(path)])
    return found + asked_files(run)


def changed_since(run: Run, begun: Mapping[str, str] | None) -> str:
    """Returns in one line what changed in the files that a run was begun with; "" where nothing did.

    `begun` are their hashes; None for a run of an earlier version, which noted none.
    """
    changes = "" if begun is None else differences(begun, noted(files_read(run)))
    return changes and (
        f"files are not as they were when this run began ({changes}); it goes on with what it read then. To learn from "
        "the files of today, start again with --overwrite"
    )


def method_hashes(arms: Arms) -> dict[str, str]:
    """Returns the SHA-256 of each Python file that holds a method of the arms."""
    names = [m if isinstance(m, str) else next(iter(m)) for methods in arms.values() for m in methods]
    files = sorted({place.file for name in names if (place := outside(name)) is not None})
    return {str(file): sha256(file) for file in files}


def files_of_methods(arms: Arms) -> list[Path]:
    """Returns the Python files that hold methods of the arms, and the files that settings of methods name."""
    settings = [value for methods in arms.values() for method in methods for value in _texts(method)]
    named = [Path(value).expanduser() for value in (*method_hashes(arms), *settings)]
    return list(dict.fromkeys(path for path in named if path.is_file()))


def _texts(method: Any) -> list[str]:
    settings = next(iter(method.values())) if isinstance(method, dict) else {}
    return [value for value in settings.values() if isinstance(value, str) and len(value) < 1000]


def check_methods_unchanged(run: Run, begun: Mapping[str, str]) -> None:
    """Raises ValueError where a method's file is not the one that the run began with; `begun` are its hashes."""
    for file, digest in method_hashes(run.arms).items():
        if begun.get(file, digest) != digest:
            raise ValueError(
                f"the method's file {file} changed since this run began (SHA-256 {digest[:12]}, began with "
                f"{begun[file][:12]}); put the old one back, or start again with --overwrite"
            )


def questions_of(
    run: Run, rows: Sequence[Row], probes: Sequence[Probe], text: str | None, held_out: Sequence[Row] = ()
) -> Questions:
    """Returns the questions of a run: its probes, its text to retain, and rows of its corpus, some of them held out."""
    text_rows = random_rows(rows, run.seed) if run.probes.corpus_text else ()
    return Questions(tuple(probes), text, text_rows, run.probes.batch_size, held_out)
