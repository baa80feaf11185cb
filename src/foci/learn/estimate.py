"""Estimates the cost of a run: memory, tokens a second, time and disk, from a short training that is thrown away."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from foci import models
from foci.config.run import Run
from foci.focus import Prepares
from foci.learn.arguments import planned_updates, updates_of_epoch
from foci.learn.callbacks import probings_before_the_last
from foci.learn.disk import REPORT, Disk, disk_of, rows_bytes, tokenizer_bytes
from foci.learn.inputs import Material, loaded_model
from foci.learn.memory import Memory
from foci.learn.offline import plan_of
from foci.learn.questions import Questions, is_to_learn
from foci.learn.trial import Setting, Trial, tried, untouched
from foci.probes import answer
from foci.rows import lengths_of
from foci.system import machine

FEW = 12
"""Probes, at most, that are read to measure the time of `binding`."""
CHARACTERS = 2000
"""Characters of the text to retain that are read to measure its time, at most."""
SIZES = ("batch_size", "accumulation", "batch_tokens", "packing", "copies", "fsdp")
"""Settings of training that change what an update costs."""
WRITTEN = 100e6
"""Bytes a second at which a model is loaded and fingerprinted, merged, saved and loaded again; a careful guess."""


@runtime_checkable
class AddsRows(Protocol):
    """A method that mixes rows into every epoch, and says before it is prepared about how many."""

    def added(self, new: int) -> int:
        """Returns the rows that an epoch of `new` new rows has beside them."""
        ...


@dataclass(frozen=True)
class ArmCost:
    """The cost of one arm: updates, tokens read, seconds of training and of offline stages, memory, disk.

    `trained`: the weights that train. `left_out` says which weights its adapter does not reach, in one sentence; ""
    where it reaches all. `untried`: why its methods could not be prepared on a few rows; "" where they could.
    """

    updates: int
    tokens: int
    seconds: float
    offline_seconds: float
    memory: Memory
    offline_peak: int
    disk: Disk
    trained: int
    left_out: str
    untried: str

    @property
    def tokens_per_second(self) -> float:
        """Returns the tokens of rows that training reads in a second, padding left out."""
        return self.tokens / max(1e-9, self.seconds)


@dataclass(frozen=True)
class Estimate:
    """The cost of a run. Memory is the GPU's, or the machine's where there is no GPU, in bytes.

    `probe_peak` is the most memory while questions are asked, `shared_disk` what the arms share of the folder.
    """

    parameters: int
    rows: int
    tokens_per_epoch: int
    probe_seconds: float
    probe_peak: int
    probings: int
    save_seconds: float
    shared_disk: int
    arms: Mapping[str, ArmCost]

    @property
    def seconds(self) -> float:
        """Returns the seconds of the run: the baseline, and per arm offline stages, training, probings, saving."""
        per_arm = self.probings * self.probe_seconds + self.save_seconds
        return self.probe_seconds + sum(arm.seconds + arm.offline_seconds + per_arm for arm in self.arms.values())

    @property
    def largest(self) -> ArmCost:
        """Returns the arm that takes the most memory while it trains."""
        return max(self.arms.values(), key=lambda arm: arm.memory.total)

    @property
    def peak(self) -> int:
        """Returns the most memory of the whole run, in bytes."""
        return max(self.probe_peak, *(max(arm.memory.total, arm.offline_peak) for arm in self.arms.values()))

    @property
    def disk(self) -> int:
        """Returns the bytes of the run's folder."""
        return self.shared_disk + sum(arm.disk.total for arm in self.arms.values())


def estimate(run: Run, material: Material, *, processes: int = 1) -> Estimate:
    """Estimates memory, tokens a second, time (s) and disk of a run, by two updates of each kind of arm.

    `processes`: how many will share the rows of an update, and with `train.fsdp` the model; memory is that of one of
    them. Time is that of one process.
    """
    loaded, questions = material.loaded, material.questions
    machine.release_memory()
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    program = 0 if machine.on_gpu() else max(0, machine.held_bytes() - weights)
    with machine.Peak() as peak:
        probe_seconds = _seconds_of_probing(material)
    kinds = dict[Any, tuple[Trial, Disk]]()
    arms, tokenizer = dict[str, ArmCost](), tokenizer_bytes(loaded.tokenizer)
    model: models.LanguageModel | None = None
    rows, answers = len(material.rows), len(questions.probes)
    for name in run.arms:
        own = run.of_arm(name)
        updates, kind = planned_updates(rows, own.train, _added(own, name, rows)), _kind(own, name)
        if kind not in kinds:
            if model is not None:
                loaded = _again(run, loaded, model)
            trial, model = tried(Setting(own, material, processes, program), name, loaded)
            kinds[kind] = trial, disk_of(own, model, tokenizer, updates, answers, material.rows)
        arms[name] = _cost(own, name, material.rows, *kinds[kind])
    first = next(iter(kinds.values()))[0]
    return Estimate(
        parameters=first.parameters,
        rows=rows,
        tokens_per_epoch=int(lengths_of(material.rows).sum()) * run.train.copies,
        probe_seconds=probe_seconds,
        probe_peak=peak.bytes,
        probings=1 + probings_before_the_last(run, arms[next(iter(arms))].updates),
        save_seconds=first.parameters * 4 / WRITTEN,
        shared_disk=REPORT + rows_bytes(material.rows),
        arms=arms,
    )


def _again(run: Run, loaded: models.Loaded, model: models.LanguageModel) -> models.Loaded:
    """Returns the untouched model again, after a trial has trained `model`, which was made of it."""
    base = untouched(model, run)
    if base is not None:
        return replace(loaded, model=base.eval())
    model.to("meta")
    return loaded_model(run)


def _kind(run: Run, arm: str) -> Any:
    """Returns what two arms have in common whose updates cost the same.

    These are the methods, with all settings but numbers, the adapter, and the rows of an update and of a pass.
    """
    methods = tuple(
        (type(method), tuple((name, repr(value)) for name, value in vars(method).items() if not _is_number(value)))
        for method in plan_of(run, arm).methods
    )
    return methods, repr(run.adapter), tuple(getattr(run.train, name) for name in SIZES)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cost(run: Run, arm: str, rows: Sequence[Any], trial: Trial, disk: Disk) -> ArmCost:
    """Returns the cost of an arm from a trial of its kind. Rows that methods mix in are counted where that is known."""
    train, added = run.train, _added(run, arm, len(rows))
    updates = planned_updates(len(rows), train, added)
    read = len(rows) * train.copies + added
    epochs = updates / updates_of_epoch(read, train)
    tokens = (int(lengths_of(rows).sum()) * train.copies + added * trial.old_length) * epochs
    offline = trial.offline.seconds(len(rows))
    if trial.offline.untried:
        stages = sum(isinstance(method, Prepares) for method in plan_of(run, arm).methods)
        offline = stages * trial.seconds_per_token * int(lengths_of(rows).sum())
    return ArmCost(
        updates=updates,
        tokens=round(tokens),
        seconds=trial.seconds_per_token * tokens,
        offline_seconds=offline,
        memory=trial.memory,
        offline_peak=trial.offline.peak,
        disk=replace(disk, scores=trial.offline.bytes(len(rows))),
        trained=trial.trained,
        left_out=trial.left_out,
        untried=trial.offline.untried,
    )


def _added(run: Run, arm: str, new: int) -> int:
    """Returns the rows that the methods of an arm mix into an epoch of `new` new rows."""
    adding: list[AddsRows] = plan_of(run, arm).of(AddsRows)  # type: ignore[type-abstract]
    return sum(method.added(new) for method in adding)


def _seconds_of_probing(material: Material) -> float:
    """Returns the seconds of one probing: the probes by a sample of each kind, all texts, and the pairs of binding."""
    questions, loaded = material.questions, material.loaded
    found, batch = 0.0, questions.batch_size
    for kind in sorted({probe.kind for probe in questions.probes}):
        some = [probe for probe in questions.probes if probe.kind == kind]
        sample = tuple(some[:: max(1, len(some) // batch)][:batch])
        answer(loaded.model, loaded.tokenizer, sample[:2], batch_size=batch)  # what is asked of each model once
        begin = time.perf_counter()
        answer(loaded.model, loaded.tokenizer, sample, batch_size=batch)
        found += (time.perf_counter() - begin) * len(some) / len(sample)
    return found + sum(_seconds_of_measure(part, loaded) * whole for part, whole in _measures(questions))


def _measures(questions: Questions) -> Iterator[tuple[Questions, float]]:
    """Yields questions with a part of one measure alone, and how much larger that measure is as a whole."""
    none = replace(questions, probes=(), text=None, rows=(), held_out_rows=())
    if questions.text:
        yield replace(none, text=questions.text[:CHARACTERS]), max(1.0, len(questions.text) / CHARACTERS)
    if first := (*questions.rows, *questions.held_out_rows[:1])[:1]:
        tokens = sum(int(lengths_of(rows).sum()) for rows in (questions.rows, questions.held_out_rows))
        yield replace(none, rows=first), tokens / len(first[0])
    if learn := [probe for probe in questions.probes if is_to_learn(probe)]:
        yield replace(none, probes=tuple(learn[:FEW])), max(1.0, len(learn) / FEW)


def _seconds_of_measure(questions: Questions, loaded: models.Loaded) -> float:
    begin = time.perf_counter()
    questions.measures(loaded.model, loaded.tokenizer)
    return time.perf_counter() - begin
