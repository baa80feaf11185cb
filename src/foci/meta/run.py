"""A meta-training from its file to a saved weigher: resumable, validated, ended early.

out/weigher/
  meta.yaml        the resolved file
  start.json       the model and the pairs that were read: from here on there is something to lose
  influence/       what each token's weight does, computed once (amortised)
  checkpoints/     adapter, head and optimiser after each epoch; whole or not there
  metrics.jsonl    a line per epoch: loss, validation loss, seconds
  weigher/         the weigher of the best epoch
  samples.json     held-out documents, token by token: weight before and after, and the target
  summary.json     what it learned from, how long it took, and how far it got
  report.html      one page of all this
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from foci import models
from foci.config.run import dump_run
from foci.gradients.inner_step import InnerStep
from foci.meta.config import MetaRun
from foci.meta.material import Material, material
from foci.meta.objectives import NUDGE, Amortised, Loop, Objective
from foci.meta.outcome import described, measured, weights_of
from foci.methods.train_attention import weigher
from foci.methods.train_attention.pairs import Pair
from foci.methods.train_attention.weigher import Weigher
from foci.models.forward import device_of
from foci.report.write import write_report
from foci.seeds import generator
from foci.system import checkpoint, launch, processes
from foci.system.files import LOCK, append_line, read_json, read_lines, write_json, write_lines, write_text
from foci.system.folder import FolderKind, claim
from foci.system.inputs import differences, noted
from foci.system.terminal import Terminal
from foci.system.words import counted

META = FolderKind(
    "meta-training",
    "meta.yaml",
    started="start.json",
    later=(
        "model.bits: null",
        "model.on_disk: false",
        "pairs.held_out_kinds: []",
        "pairs.several: each",
        "step.batch_size: 1",
    ),
)

TELL_EVERY = 60
"""Seconds after which an epoch says where it is."""


def meta(
    run: MetaRun, *, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> dict[str, Any]:
    """Trains a weigher and writes it to `run.output`/weigher; gives the summary.

    Raises FileExistsError for a folder that holds something else, or this meta-training without `resume`. Processes of
    a launcher share the influence and the pairs of each update (amortised); ValueError for the loop in several.
    """
    console = console or Terminal(quiet=True)

    def tell(words: str) -> None:
        console.print(f"  {words}", highlight=False, markup=False)

    if run.how == "loop" and launch.count() > 1:
        raise ValueError(
            f"a step of the loop is one step on all documents of a batch, which one process takes, got "
            f"{launch.count()} (WORLD_SIZE, as torchrun sets it); start it without the launcher, or set how: amortised"
        )
    opened = partial(_claimed, run, resume=resume, overwrite=overwrite)
    with processes.together(processes.RESUME), processes.opened_by_first(opened, run.output / META.marker):
        done: dict[str, Any] | None = processes.from_first(lambda: read_json(run.output / "summary.json"))
        return done if done is not None else _learned(run, tell)


@contextmanager
def _claimed(run: MetaRun, *, resume: bool, overwrite: bool) -> Iterator[None]:
    settings = dump_run(run)
    _mark_started(run.output)
    with claim(run.output, META, settings, resume=resume, overwrite=overwrite):
        write_text(run.output / META.marker, settings)
        yield


def _mark_started(folder: Path) -> None:
    """Marks a folder of an earlier version, which wrote no start.json, as one that holds results."""
    begun = all((folder / name).is_file() for name in (META.marker, LOCK))
    results = any((folder / name).exists() for name in ("summary.json", "metrics.jsonl", "influence"))
    if begun and results and not (folder / META.started).exists():
        write_json(folder / META.started, {})


def _unchanged(run: MetaRun) -> dict[str, str]:
    """Returns the hashes of the files that are read. Raises ValueError where a meta-training began with others."""
    named = [*run.pairs.path, run.retain.path if run.retain else "", run.locality.text]
    inputs = noted(Path(name).expanduser() for name in named if name)
    known = (read_json(run.output / META.started) or {}).get("inputs", inputs)
    if changes := differences(known, inputs):
        raise ValueError(
            f"files are not those that {run.output} was begun with ({changes}); put the old ones back, or start again "
            "with --overwrite"
        )
    return inputs


def _learned(run: MetaRun, tell: Callable[[str], None]) -> dict[str, Any]:
    """Trains the weigher, or goes on with it. Writes the summary and returns it."""
    begun = time.monotonic()
    inputs = processes.from_first(lambda: _unchanged(run))
    made = material(run)
    _check_alike(made)
    processes.from_first(lambda: _start(run, made, inputs))
    tell(f"{run.model.name}: {counted(len(made.train), 'pair')} to learn from, {len(made.held_out)} held out")
    objective = _objective(run, made, tell)
    prepared = time.monotonic() - begun
    shape = run.weigher.model_dump(exclude={"half"})
    loaded = weigher.new(run.model.name, seed=run.seed, bias=objective.bias, **shape)
    before = weights_of(made, loaded.weigher)
    training = Training(run, made, objective, loaded.weigher, tell)
    while not training.ended():
        line = training.epoch()
        loss = "" if line["loss"] is None else f"  loss {line['loss']:.4f}"
        tell(f"epoch {line['epoch']}/{run.train.epochs}{loss}  held out {line['held_out']:.4f}")
    training.best()
    return processes.from_first(lambda: _ended(training, before, prepared))


def _check_alike(made: Material) -> None:
    """Raises ValueError where processes have read other pairs, or another model, than the first."""
    own = made.fingerprint, [pair.id for pair in (*made.train, *made.held_out)]
    for number, (fingerprint, ids) in enumerate(every := processes.gathered(own), 1):
        if (fingerprint, ids) != every[0]:
            raise ValueError(
                f"process {number} of {len(every)} has read {len(ids)} pairs and the model {fingerprint}, not those "
                f"of the first ({len(every[0][1])} pairs, {every[0][0]}); give all machines the same files"
            )


def _start(run: MetaRun, made: Material, inputs: Mapping[str, str]) -> None:
    """Writes start.json. Raises ValueError where the meta-training began with another model."""
    start = {"model": made.fingerprint, "pairs": len(made.train), "held_out": len(made.held_out), "inputs": inputs}
    begun_with = (read_json(run.output / META.started) or {}).get("model", made.fingerprint)
    if begun_with != made.fingerprint:
        raise ValueError(
            f"model {run.model.name} is not the one this meta-training began with (fingerprint {made.fingerprint}, "
            f"began with {begun_with}); put the old one back, or start again with --overwrite"
        )
    write_json(run.output / META.started, start, sealed=True)


def _ended(training: "Training", before: Tensor, prepared: float) -> dict[str, Any]:
    """Saves the weigher of the best epoch, measures it, and writes summary and report; returns the summary.

    `before`: the held-out documents' weights before training; `prepared`: the seconds before it.
    """
    run, made, objective = training.run, training.material, training.objective
    base = {"fingerprint": made.fingerprint, "how": run.how, "pairs": len(made.train), "seed": run.seed}
    weigher.save(training.weigher, run.output / "weigher", base=run.model.name, made_by=base, half=run.weigher.half)
    after = weights_of(made, training.weigher)
    write_json(run.output / "samples.json", described(made, objective, before, after))
    found = {
        "how": run.how,
        "pairs": len(made.train),
        "held_out": len(made.held_out),
        "seconds": {"influence": prepared, "weigher": sum(m["seconds"] for m in read_lines(training.metrics))},
        "best_epoch": training.best_epoch(),
        **measured(made, objective, after, _step(run), seed=run.seed),
    }
    write_json(run.output / "summary.json", found, sealed=True)
    write_report([run.output], run.output)
    return found


@dataclass
class Training:
    """The weigher's epochs, with a checkpoint after each, so that a killed run goes on with the next.

    Every process must call each method; the first writes.
    """

    run: MetaRun
    material: Material
    objective: Objective
    weigher: Weigher
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        self.metrics, self.checkpoints = self.run.output / "metrics.jsonl", self.run.output / "checkpoints"
        self.trainable = self.weigher.trainable()
        train = self.run.train
        head = [p for name, p in self.trainable.items() if name.startswith("head.")]
        rest = [p for name, p in self.trainable.items() if not name.startswith("head.")]
        groups = [{"params": rest, "lr": train.learning_rate}, {"params": head, "lr": train.head_rate}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self.examples = self.objective.examples(self.material.train)
        self.batches = len(self.examples) // train.batch_size
        if not self.batches:
            raise ValueError(
                f"an epoch has {len(self.examples)} documents, expected at least a batch of {train.batch_size}; give "
                "more pairs, or lower train.batch_size"
            )
        total = self.batches * train.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: max(0.0, 1 - step / total))
        self.done = self._go_on()

    def ended(self) -> bool:
        """Tells whether all epochs are done, or none of the last `patience` was better."""
        best = processes.from_first(self.best_epoch)
        return self.done >= self.run.train.epochs or self.done - best >= self.run.train.patience

    def best_epoch(self) -> int:
        """Returns the epoch (from 1) of the lowest validation loss; 0 before the first."""
        lines = read_lines(self.metrics)
        return int(min(lines, key=lambda line: line["held_out"])["epoch"]) if lines else 0

    def epoch(self) -> dict[str, Any]:
        """Trains on every example once, but for a rest that fills no batch; then validates and writes a checkpoint."""
        begun, size, losses = time.monotonic(), self.run.train.batch_size, list[float | None]()
        said = begun
        order = generator("meta", self.run.seed, self.done).permutation(len(self.examples))
        for batch in range(self.batches):
            pairs = [self.examples[i] for i in order[batch * size : (batch + 1) * size]]
            losses.append(self._update(pairs, self.done * self.batches + batch))
            if time.monotonic() - said > TELL_EVERY:
                said = time.monotonic()
                self.tell(f"epoch {self.done + 1}  update {batch + 1}/{self.batches}  {said - begun:.0f} s")
        held_out = self.objective.validate(self.weigher, self.material.held_out)
        if not math.isfinite(held_out):
            self._diverged("loss of held-out pairs", held_out)
        self.done += 1
        line = {
            "epoch": self.done,
            "loss": sum(known) / len(known) if (known := [loss for loss in losses if loss is not None]) else None,
            "held_out": held_out,
            "seconds": time.monotonic() - begun,
        }
        if processes.is_first():
            self._save(line)
        processes.wait()
        return line

    def _save(self, line: Mapping[str, Any]) -> None:
        """Writes the checkpoint of an epoch, and its line of metrics."""
        with checkpoint.staged(self.checkpoints, self.done) as folder:
            save_file({name: p.detach().clone() for name, p in self.trainable.items()}, folder / "weigher.safetensors")
            state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(), "line": line}
            torch.save(state, folder / "optimizer.pt")
        append_line(self.metrics, line)

    def best(self) -> None:
        """Restores the weigher of the best epoch."""
        self._read(self.checkpoints / f"step-{processes.from_first(self.best_epoch)}")

    def _update(self, pairs: Sequence[Pair], key: int) -> float | None:
        self.weigher.train()
        with torch.autocast(device_of(self.weigher).type, dtype=torch.bfloat16, enabled=self._half()):
            loss = self.objective.backward(self.weigher, pairs, key)
        processes.sum_gradients(self.trainable.values())
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.trainable.values()), 1.0))
        if not math.isfinite(norm):
            self._diverged("gradient norm", norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.weigher.eval()
        return loss

    def _diverged(self, what: str, value: float) -> NoReturn:
        raise ArithmeticError(
            f"meta-training diverged: the {what} is {value} in epoch {self.done + 1}; nothing of this epoch is kept. "
            f"Lower train.learning_rate ({self.run.train.learning_rate:g}) or train.head_rate "
            f"({self.run.train.head_rate:g}), or train in float32"
        )

    def _half(self) -> bool:
        return models.compute_dtype(self.run.model.dtype, device_of(self.weigher).type) == torch.bfloat16

    def _go_on(self) -> int:
        """Restores the newest checkpoint. Returns its number of epochs; metrics written after it are dropped."""
        found = processes.from_first(lambda: checkpoint.newest(self.checkpoints)[0])
        done = checkpoint.step_of(found) if found else 0
        lines = [line for line in read_lines(self.metrics) if line["epoch"] <= done]
        if found is not None:
            state = torch.load(found / "optimizer.pt", map_location="cpu", weights_only=True)
            self._read(found)
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            lines = [line for line in lines if line["epoch"] < done] + [state["line"]]
        if processes.is_first():
            write_lines(self.metrics, lines)
        processes.wait()
        return done

    def _read(self, folder: Path) -> None:
        stored = load_file(folder / "weigher.safetensors", device=str(device_of(self.weigher)))
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(stored[name])


def _objective(run: MetaRun, made: Material, tell: Callable[[str], None]) -> Objective:
    if run.how == "loop":
        return Loop(made, _step(run), warm=run.warm, seed=run.seed)
    return Amortised(made, run.output / "influence", _step(run), tell, run.seed, run.pairs.several)


def _step(run: MetaRun) -> InnerStep:
    """Returns the step that the run file describes; a nudge where it gives neither rate nor length."""
    given = run.step
    if given.lr is None and given.length is None:
        return replace(NUDGE, normalise=given.normalise)
    return InnerStep(given.lr or 0.0, given.kind, given.normalise, given.length)
