"""Estimates the cost of a run from one update, which is computed and thrown away."""

import math
import time
from dataclasses import dataclass

import torch

from foci import models
from foci.config.run import Run
from foci.focus import Batch
from foci.learn.arguments import learner, planned_updates, updates_of_epoch
from foci.learn.inputs import Material
from foci.models.forward import device_of, pad_id, padded
from foci.models.losses import token_nll
from foci.system import machine

PROBES = 32
"""Probes, at most, that are answered to measure the time of one."""


@dataclass(frozen=True)
class Estimate:
    """The cost of one arm; `arms` is their number. Memory is the GPU's, or the machine's where there is no GPU.

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
    arms: int

    @property
    def seconds(self) -> float:
        """Returns the seconds of the whole run: all arms, and the baseline once."""
        return self.arms * (self.train_seconds + self.probe_seconds) + self.probe_seconds


def estimate(run: Run, material: Material) -> Estimate:
    """Estimates parameters, tokens, updates, memory (MiB) and time (s) of a run. Takes a few seconds.

    Rehearsed rows and offline stages are not counted.
    """
    rows, train = material.rows, run.train
    per_epoch = updates_of_epoch(len(rows) * train.copies, train)
    updates = planned_updates(len(rows), train)
    tokens = sum(len(row) for row in rows) * train.copies
    loaded, asked = material.loaded, material.questions.probes
    begin = time.perf_counter()
    if asked:
        type(material.questions)(asked[:PROBES], None, ()).ask(loaded.model, loaded.tokenizer)
    per_probe = (time.perf_counter() - begin) / max(1, len(asked[:PROBES]))
    probings = 1 + (math.ceil(updates / run.probes.every) - 1 if run.probes.every else 0)
    model = learner(run, loaded.model)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    longest = sorted(rows, key=len)[-train.batch_size :]
    batch = padded(longest, pad_id(loaded.tokenizer), "right", device_of(model))
    machine.reset_peak()
    seconds = _seconds_of_update(model, batch, loaded.compute_dtype)
    peak = machine.peak_mib()
    return Estimate(
        parameters=parameters,
        trained=trained,
        left_out=models.coverage(model).words(),
        rows=len(rows),
        tokens_per_epoch=tokens,
        updates=updates,
        tokens=round(tokens * updates / per_epoch),
        memory_mib=None if peak is None else peak + 8 * trained / 2**20,  # Adam's two averages
        train_seconds=seconds / max(1, int(batch.attention_mask.sum())) * tokens * updates / per_epoch,
        probe_seconds=probings * per_probe * len(asked),
        arms=len(run.arms),
    )


def _seconds_of_update(model: torch.nn.Module, batch: Batch, dtype: torch.dtype) -> float:
    """Returns the seconds of one forward and backward pass: the second of two, as the first warms up."""
    model.train()
    took = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        with torch.autocast(batch.input_ids.device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = token_nll(model, batch).sum() / batch.predicted().sum()
        loss.backward()
        took = time.perf_counter() - begin
        model.zero_grad(set_to_none=True)
    return took
