"""Trainer callbacks: metrics, probes, checkpoints, the progress line."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foci.config.run import Run
from foci.corpus.seen import key_of, keys_of
from foci.system import processes
from foci.system.files import append_line
from foci.system.run_folder import ArmFolder
from foci.system.signals import Interrupted, Stop


class Clock:
    """A clock for the seconds of training; time that is skipped does not count."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.mark = seconds, time.perf_counter()

    def read(self) -> float:
        """Returns the seconds so far."""
        now = time.perf_counter()
        self.seconds += now - self.mark
        self.mark = now
        return self.seconds

    def skip(self) -> None:
        """Leaves out the time since the clock was last read."""
        self.mark = time.perf_counter()


class Unread:
    """The rows that were not read so far, by 9 bytes for each."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.keys = np.unique(keys_of(ids))
        self.unread = np.ones(len(self.keys), dtype=bool)

    def first(self, ids: Iterable[str]) -> list[str]:
        """Returns which of these rows were not read before, each once, and notes that they are read."""
        found = []
        for row_id, key in ((row_id, key_of(row_id)) for row_id in dict.fromkeys(ids)):
            at = int(np.searchsorted(self.keys, np.uint64(key)))
            if at < len(self.keys) and self.keys[at] == key and self.unread[at]:
                self.unread[at] = False
                found.append(row_id)
        return found


class Metrics(TrainerCallback):
    """A callback that writes one line of metrics.jsonl per update; `lines` are those of an earlier process.

    A line names those of the rows `noted` (their ids) that the update read for the first time.
    """

    def __init__(
        self, folder: ArmFolder, trainer: Any, lines: Sequence[Mapping[str, Any]], noted: Iterable[str] = ()
    ) -> None:
        self.folder, self.trainer = folder, trainer
        last = lines[-1] if lines else {}
        self.tokens: int = last.get("tokens", 0)
        self.unread = Unread(noted)
        for line in lines:
            self.unread.first(line.get("first_read", ()))
        self.clock = Clock(last.get("seconds", 0.0))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock.skip()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock.read()
        update = self.trainer.update
        self.tokens += update.tokens
        if update.held:  # all else was counted over all processes
            parts = processes.gathered(update.divergence)
            self.trainer.update = replace(update, divergence=sum(parts) / len(parts))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock.skip()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs or not processes.is_first():
            return
        update = self.trainer.update
        new = self.unread.first(update.rows)
        append_line(
            self.folder.metrics,
            {
                "step": state.global_step,
                "epoch": logs.get("epoch", state.epoch),
                "loss": logs["loss"],
                "grad_norm": logs.get("grad_norm"),
                "learning_rate": logs.get("learning_rate"),
                "tokens": self.tokens,
                "weighted_tokens": update.weighted,
                "held_tokens": update.held,
                "guided_queries": update.guided,
                "padding": 1 - update.read / max(update.positions, 1),
                "seconds": self.clock.seconds,
                **({"first_read": new} if new else {}),
            },
        )


def empty_updates(metrics: Sequence[Mapping[str, Any]]) -> int:
    """Returns in how many updates nothing trained: no token to learn, none held to a teacher, no guided query."""
    kinds = ("weighted_tokens", "held_tokens", "guided_queries")
    return sum(not any(line.get(kind) for kind in kinds) for line in metrics)


def updates_between_probings(every: int | None, updates: int, *, often: bool) -> int | None:
    """Returns after how many updates the questions are asked again: `every`, else, with `often`, a twentieth of all.

    None: not before the end.
    """
    return every or (max(1, math.ceil(updates / 20)) if often else None)


def probings_before_the_last(run: Run, updates: int) -> int:
    """Returns how often an arm of so many updates asks the questions between its first update and its last."""
    every = updates_between_probings(run.probes.every, updates, often=run.train.patience is not None)
    return math.ceil(updates / every) - 1 if every else 0


class Probing(TrainerCallback):
    """A callback that asks the questions every `every` updates, but not after the last one: the arm asks then.

    `every` None: never; with `often`, twenty times in all. A signal ends the asking: the checkpoint is written without
    answers, and a resume, which `noted` tells of it, asks first.
    """

    def __init__(
        self,
        every: int | None,
        ask: Callable[[int], None],
        clock: Clock,
        *,
        often: bool = False,
        noted: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.every, self.ask, self.clock, self.often, self.noted = every, ask, clock, often, noted

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step and not self._is_noted(state.global_step) and not self._ask(state):
            control.should_training_stop = True  # else an update would follow, and these questions be left for good

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._ask(state)

    def _is_noted(self, step: int) -> bool:
        return processes.from_first(lambda: self.noted(step))  # all ask, or none

    def _ask(self, state: TrainerState) -> bool:
        """Asks where it is time to; returns False where a signal ended the asking."""
        every = updates_between_probings(self.every, state.max_steps, often=self.often)
        if not every or state.global_step % every or state.global_step >= state.max_steps:
            return True
        done = False
        with suppress(Interrupted):  # the callback that saves sees the signal
            self.ask(state.global_step)
            done = True
        self.clock.skip()
        return done


class Saving(TrainerCallback):
    """A callback that has a checkpoint written every `every` updates (None: ten in all) and before a stop."""

    def __init__(self, every: int | None, stop: Stop) -> None:
        self.every, self.stop = every, stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        every = self.every or max(1, math.ceil(state.max_steps / 10))
        if state.global_step % every == 0:
            control.should_save = True
        asked = processes.largest(self.stop.signum or 0)  # all processes stop after the same update
        if asked and self.stop.signum is None:
            self.stop.ask(asked)
        if asked:
            control.should_save = control.should_training_stop = True


class Display(TrainerCallback):
    """A callback that shows progress: a live line on a terminal, about ten plain lines elsewhere."""

    def __init__(self, console: Console, arm: str) -> None:
        self.console, self.arm = console, arm
        self.progress: Progress | None = None
        self.clock = Clock()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock.skip()
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[loss]}"),
            console=self.console,
        )
        self.progress.start()
        self.task = self.progress.add_task(f"  {self.arm}", total=state.max_steps, completed=state.global_step, loss="")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        loss = f"loss {logs['loss']:.3f}"
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step, loss=loss)
        elif state.global_step % max(1, math.ceil(state.max_steps / 10)) == 0 or state.global_step == state.max_steps:
            step = f"{state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"
            words = f"  {self.arm}  update {step}  {loss}  {self.clock.read():.0f} s"
            self.console.print(words, highlight=False, markup=False)

    def close(self) -> None:
        """Removes the live line and shows the cursor again."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
