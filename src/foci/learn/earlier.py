"""The earlier batches of pages in a run that goes on: rows to rehearse, probes to ask again, and what became of them.

The history says, for each batch of pages, the share of its probes that is answered before and after every batch: the
first entry is of the untouched model, the next ones follow the order of the batches; None was not asked. Under
`general` the same of the probes to retain that the untouched model answers (`kept`), and bits per byte of general text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from foci import models
from foci.config.run import Run
from foci.corpus import write_rows
from foci.corpus.seen import keys_of
from foci.focus import Row
from foci.learn.finished import Finished, asked, asked_files, probes_of
from foci.probes import Answer, Probe, answer, read_answers, write_answers
from foci.rows import chosen, ids_of
from foci.seeds import drawn_places
from foci.system.files import read_json, write_json, write_lines
from foci.system.inputs import differences, noted
from foci.system.run_folder import RunFolder
from foci.system.words import counted, form


@dataclass(frozen=True)
class Earlier:
    """The part of a run that is about earlier batches: their probes, and what the untouched model says.

    `new` is the number of rows in front of the rehearsed ones, `name` that of the run's own batch, `arm` that of the
    run before whose model goes on.
    """

    name: str
    arm: str
    new: int
    probes: tuple[Probe, ...]
    history: dict[str, Any]
    untouched: tuple[Answer, ...]
    asked: Mapping[str, str | None] | None = None
    """The facts to retain and the text that are asked about; None in a run of an earlier version."""

    def after(
        self, before: Sequence[Answer], answers: Sequence[Answer], old: Sequence[Answer], bits: float | None
    ) -> dict[str, Any]:
        """Returns the history with the run's own batch.

        `before` are the answers of the model that the run went on from, `answers` those after training; `old` are the
        answers to earlier probes after training, `bits` the bits per byte of general text.
        """
        found = json.loads(json.dumps(self.history))
        for number, batch in enumerate(found["pages"], start=1):
            own = _reported(old, f"{number}/")
            batch["learned"].append(_share(own, _correct))
            batch["tokens"].append(_share(own, _accuracy))
        gap: list[float | None] = [None] * (len(found["pages"]) - 1)
        stages = [_reported(some) for some in (self.untouched, before, answers)]
        row: dict[str, Any] = {"name": self.name, "probes": len(stages[-1])}
        for key, score in (("learned", _correct), ("tokens", _accuracy)):
            first, start, last = (_share(some, score) for some in stages)
            row[key] = [first, *gap, start, last]
        found["pages"].append(row)
        found["after"].append(self.name)
        self._keep(found["general"], answers, bits)
        return found  # type: ignore[no-any-return]

    def _keep(self, general: dict[str, Any], answers: Sequence[Answer], bits: float | None) -> None:
        """Adds the share that is kept of what the untouched model knew, and the bits per byte.

        Where the facts, or the text, are others than before, the earlier numbers are not comparable and become None.
        """
        before, now = general.get("asked"), self.asked
        others = {what for what in ("facts", "text") if before and now and before.get(what) != now.get(what)}
        general["asked"] = now
        known = {a.probe_id for a in self.untouched if a.role == "retain" and a.correct and not a.held_out}
        if "text" in others:
            general["bits_per_byte"] = [None] * len(general["bits_per_byte"])
        if "facts" in others or len(known) != general["known"]:
            general["kept"] = [None] * len(general["kept"])
        general["known"] = len(known)
        kept = [a for a in answers if a.role == "retain" and a.probe_id in known]
        general["kept"].append(_share(kept, _correct))
        general["bits_per_byte"].append(bits)


def _reported(answers: Sequence[Answer], prefix: str = "") -> list[Answer]:
    """Returns the answers to learn whose ids begin so, without held-out ones."""
    return [a for a in answers if a.role == "learn" and not a.held_out and a.probe_id.startswith(prefix)]


def _share(answers: Sequence[Answer], score: Callable[[Answer], float]) -> float | None:
    return sum(map(score, answers)) / len(answers) if answers else None


def _correct(answer: Answer) -> float:
    return float(answer.correct)


def _accuracy(answer: Answer) -> float:
    return answer.accuracy


@dataclass(frozen=True)
class Rehearsal:
    """The rows of earlier batches, those of them that are rehearsed, and how many of the read rows were known."""

    before: Finished
    rows: Sequence[Row]
    rehearsed: Sequence[Row]
    known: int
    new: int

    def told(self) -> list[str]:
        """Returns lines for people: what the run goes on from, what it rehearses, and which old pages changed."""
        probes = len(self.before.probes())
        found = [
            f"goes on from {self.before.path} (arm {self.before.arm}): rehearses {len(self.rehearsed):,} of "
            f"{counted(len(self.rows), 'row')} of earlier pages, and asks {counted(probes, 'earlier probe')} again"
        ]
        if self.known:
            found.append(
                f"{counted(self.known, 'row')} of these pages {form(self.known, 'was', 'were')} learned before"
            )
        begun = {file: digest for batch in self.before.batches() for file, digest in batch["files"].items()}
        if changes := differences(begun, noted(map(Path, begun))):
            found.append(
                f"earlier pages are not as they were ({changes}); they are rehearsed as they were when they were "
                "learned, from the rows that the run kept"
            )
        return found


def rehearsal(before: Finished, run: Run, rows: Sequence[Row], known: int) -> Rehearsal:
    """Returns the earlier rows, and a random draw of `ratio` of them per new row, the same for the same seed."""
    assert run.continues is not None  # there is no `before` without it
    old = _without(before.rows(), rows)
    count = min(len(old), round(run.continues.ratio * len(rows)))
    number = len(before.batches()) + 1
    order = drawn_places((f"rehearsed/{number}/{row_id}" for row_id in ids_of(old)), run.seed)
    return Rehearsal(before, old, chosen(old, np.sort(order[:count])), known, len(rows))


def _without(rows: Sequence[Row], others: Sequence[Row]) -> Sequence[Row]:
    """Returns the rows whose ids none of the others has."""
    known = np.isin(keys_of(ids_of(rows)), keys_of(ids_of(others)))
    return chosen(rows, np.flatnonzero(~known))


def new_rows(before: Finished, rows: Sequence[Row]) -> Sequence[Row]:
    """Returns the rows that were not learned before. Raises ValueError where there is none."""
    found = _without(rows, before.rows())
    if not found:
        raise ValueError(
            f"there is nothing new: all {counted(len(rows), 'row')} were learned before (in {before.path} or a run "
            "before it); give further pages, or train that run longer: a new run with more train.epochs"
        )
    return found


def write_earlier(made: Rehearsal, run: Run, folder: RunFolder, questions: Sequence[Probe]) -> None:
    """Writes earlier/: rows, probes, history, and the untouched model's answers to the run's own questions.

    Raises ValueError where the untouched model is not the one that the first batch began with.
    """
    before = made.before
    write_rows(made.rows, folder.earlier_rows)
    write_lines(folder.earlier_probes, [{**vars(p), "aliases": list(p.aliases)} for p in before.probes()])
    loaded = models.load_configured(run.model)
    begun = before.state()["untouched"]
    if loaded.fingerprint != begun:
        raise ValueError(
            f"model {run.model.name} is not the one that {before.path} began with (fingerprint {loaded.fingerprint}, "
            f"began with {begun}); put the old one back, or start a new run without continues"
        )
    write_answers(folder.untouched, answer(loaded.model, loaded.tokenizer, questions, batch_size=run.probes.batch_size))
    nn.Module.to(loaded.model, "meta")
    batches, names = before.batches(), [page["name"] for page in before.history()["pages"]]
    write_json(
        folder.earlier_state,
        {
            "batches": batches,
            "name": run.name if run.name not in names else f"{run.name}, batch {len(batches) + 1}",
            "arm": before.arm,
            "untouched": begun,
            "new": made.new,
            "history": before.history(),
            "asked": asked(run, noted([path for path in asked_files(run) if path.is_file()])),
        },
    )


def read_earlier(folder: RunFolder) -> Earlier | None:
    """Returns what `write_earlier` wrote; None in a run that goes on from none."""
    state = read_json(folder.earlier_state)
    if state is None:
        return None
    return Earlier(
        state["name"],
        state["arm"],
        state["new"],
        tuple(probes_of(folder.earlier_probes)),
        state["history"],
        tuple(read_answers(folder.untouched)),
        state.get("asked"),
    )
