"""Estimates the cost of a run from one update, which is computed and thrown away."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from foci import models
from foci.config.run import Run
from foci.focus import Batch, Prepares
from foci.learn.arguments import learner, planned_updates, updates_of_epoch
from foci.learn.fitting import fitting
from foci.learn.inputs import Material
from foci.learn.offline import plan_of
from foci.learn.questions import Questions, is_to_learn
from foci.models.forward import buckets, device_of, pad_id, padded
from foci.models.lean import Lean
from foci.models.soft_targets import summed_loss
from foci.probes import answer
from foci.rows import lengths_of
from foci.system import machine

PROBES = 12
"""Probes of a kind, at most, that are answered to measure the time of one."""
CHARACTERS = 2000
"""Characters of the text to retain that are read to measure its time, at most."""
WRITTEN = 100e6
"""Bytes a second at which a model is loaded and fingerprinted, merged, saved and loaded again; a careful guess."""


@runtime_checkable
class AddsRows(Protocol):
    """A method that mixes rows into every epoch, and says before it is prepared about how many."""

    def added(self, new: int) -> int:
        """Returns the rows that an epoch of `new` new rows has beside them."""
        ...


@dataclass(frozen=True)
class Estimate:
    """The cost of one arm; `arms` is their number, and `arm_updates` the updates of each, by name.

    Memory is the GPU's, or the machine's where there is no GPU.

    `left_out` says which weights the adapter does not reach, in one sentence; empty where it reaches all.
    """

    parameters: int
    trained: int
    left_out: str
    rows: int
    tokens_per_epoch: int
    updates: int
    tokens: int
    memory_mib: float | None
    train_seconds: float
    probe_seconds: float
    probings: int
    save_seconds: float
    offline_seconds: float
    arms: int
    arm_updates: Mapping[str, int]

    @property
    def seconds(self) -> float:
        """Returns the seconds of the whole run: the baseline, and per arm training, probings, loading and saving.

        Offline stages are counted as far as they can be told.
        """
        per_arm = self.probings * self.probe_seconds + self.save_seconds
        training = self.train_seconds * sum(self.arm_updates.values()) / max(1, self.updates)
        return self.probe_seconds + training + self.arms * per_arm + self.offline_seconds


def estimate(run: Run, material: Material) -> Estimate:
    """Estimates parameters, tokens, updates, memory (MiB) and time (s) of a run. Takes a few seconds.

    An offline stage counts as one pass over the corpus. Updates, tokens and time of training are those of an arm that
    reads the corpus alone; `arm_updates` counts the rows that methods mix in, as far as they can be told.
    """
    rows, train = material.rows, run.train
    per_epoch = updates_of_epoch(len(rows) * train.copies, train)
    updates = planned_updates(len(rows), train)
    lengths = lengths_of(rows)
    tokens = int(lengths.sum()) * train.copies
    loaded = material.loaded
    probe_seconds = _seconds_of_probing(material)
    probings = 1 + (math.ceil(updates / run.probes.every) - 1 if run.probes.every else 0)
    stages = sum(isinstance(method, Prepares) for arm in run.arms for method in plan_of(run, arm).methods)
    model = learner(run, loaded.model)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    longest = [rows[n] for n in lengths.argsort(kind="stable")[-train.batch_size :].tolist()]
    fit = fitting(train, model, max(map(len, longest)), loaded.compute_dtype)
    groups = buckets([len(row) for row in longest], train.batch_size, fit.tokens)
    pad, device = pad_id(loaded.tokenizer), device_of(model)
    parts = [padded([longest[n] for n in group], pad, "right", device) for group in groups]
    machine.reset_peak()
    seconds = _seconds_of_update(model, parts, loaded.compute_dtype)
    peak, per_token = machine.peak_mib(), seconds / max(1, sum(map(len, longest)))
    return Estimate(
        parameters=parameters,
        trained=trained,
        left_out=models.coverage(model).words(),
        rows=len(rows),
        tokens_per_epoch=tokens,
        updates=updates,
        tokens=round(tokens * updates / per_epoch),
        memory_mib=peak,
        train_seconds=per_token * tokens * updates / per_epoch,
        probe_seconds=probe_seconds,
        probings=probings,
        save_seconds=parameters * 4 / WRITTEN,
        offline_seconds=stages * per_token * tokens / train.copies,
        arms=len(run.arms),
        arm_updates={arm: planned_updates(len(rows) + _added(run, arm, len(rows)), train) for arm in run.arms},
    )


def _added(run: Run, arm: str, new: int) -> int:
    """Returns the rows that the methods of an arm mix into an epoch of `new` new rows."""
    adding: list[AddsRows] = plan_of(run, arm).of(AddsRows)  # type: ignore[type-abstract]
    return sum(method.added(new) for method in adding)


def _seconds_of_probing(material: Material) -> float:
    """Returns the seconds of one probing: the probes by a sample of each kind, all texts, and the pairs of binding."""
    questions, loaded = material.questions, material.loaded
    found = 0.0
    for kind in sorted({probe.kind for probe in questions.probes}):
        some = [probe for probe in questions.probes if probe.kind == kind]
        sample = tuple(some[:: max(1, len(some) // PROBES)][:PROBES])
        begin = time.perf_counter()
        answer(loaded.model, loaded.tokenizer, sample, batch_size=questions.batch_size)
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
        yield replace(none, probes=tuple(learn[:PROBES])), max(1.0, len(learn) / PROBES)


def _seconds_of_measure(questions: Questions, loaded: models.Loaded) -> float:
    begin = time.perf_counter()
    questions.measures(loaded.model, loaded.tokenizer)
    return time.perf_counter() - begin


def _seconds_of_update(model: torch.nn.Module, parts: Sequence[Batch], dtype: torch.dtype) -> float:
    """Returns the seconds of one update, read in parts, after one of its first row, which warms up.

    It is a forward and a backward pass, clipping, and a step of AdamW whose rate is 0, so that no weight moves.
    """
    model.train()
    took, moving = 0.0, [p for p in model.parameters() if p.requires_grad]
    optimizer, lean = torch.optim.AdamW(moving, lr=0.0, weight_decay=0.0), Lean.of(model, dtype)
    for some in ([parts[0].take([0])], parts):
        begin, total = time.perf_counter(), sum(int(part.predicted().sum()) for part in some)
        for part in some:
            with nullcontext() if lean is None else lean.on():  # as the trainer does
                with torch.autocast(part.input_ids.device.type, dtype=dtype, enabled=dtype != torch.float32):
                    loss, _ = summed_loss(model, part, part.predicted() / total, [], [])
                loss.backward()
        nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        took = time.perf_counter() - begin
        model.zero_grad(set_to_none=True)
    return took
