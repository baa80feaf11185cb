"""Logs a run to experiment trackers (trackio, tensorboard, wandb, mlflow, swanlab) by Transformers' own callbacks.

The Trainer would end a tracker's run when training ends. Here it stays open until the last probing is logged, because
some trackers open a second run for whatever comes later.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from foci.config.run import Run
from foci.config.trackers import check_trackers
from foci.system.files import read_json, write_json
from foci.system.run_folder import ArmFolder
from foci.training.trainer import FocusTrainer

MEASURED = {
    "learned_whole": "eval_learned",
    "retained_whole": "eval_retained",
    "learned": "eval_learned_tokens",
    "retained": "eval_retained_tokens",
    "bits_per_byte": "eval_bits_per_byte",
    "corpus_bits_per_byte": "eval_corpus_bits_per_byte",
    "binding": "eval_binding",
}
"""The names of what a probing measures, in trackers. Transformers shows `eval_learned` as "eval/learned"."""

_BROKEN = (OSError, RuntimeError, ValueError, TypeError)
"""Errors of a tracker in the middle of a run, as where its server is gone: the run goes on without it."""


def run_name(run: Run, arm: str, folder: ArmFolder) -> str:
    """Returns the name of an arm's run in trackers; the same after a resume, another one for each run anew.

    trackio goes on with a run of the same name, so a name holds the time at which the arm first began.
    """
    known = read_json(folder.trackers)
    if known is None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        known = {"run": f"{run.name}-{arm}-seed{run.seed}-{stamp}"}
        write_json(folder.trackers, known)
    return str(known["run"])


def tracked_of(trainer: FocusTrainer) -> dict[str, int | float]:
    """Returns what trackers log of the newest update beside the Trainer's own numbers.

    `kl` is what the tokens that are held to a teacher add to the loss, in nats (`Update.divergence`).
    """
    update = trainer.update
    held = {"kl": update.divergence, "held_tokens": update.held} if update.held else {}
    return {"tokens_of_update": update.tokens, **held}


class Trackers(TrainerCallback):
    """A callback that hands what is logged to trackers, until `close`. Without names it does nothing.

    `first` is what the untouched model's probing measured, `extra` returns further numbers of the newest update, `say`
    prints a line for people.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        first: Mapping[str, Any],
        extra: Callable[[], dict[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        check_trackers(names)
        self.folder, self.first, self.extra, self.say = folder, first, extra, say
        self.open: dict[str, TrainerCallback] = {}
        for name, kind in zip(names, get_reporting_integration_callbacks(list(names)), strict=True):
            with _beginning(name):
                self.open[name] = _with_steps(kind())
        self.begun: tuple[TrainingArguments, TrainerState, TrainerControl, dict[str, Any]] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self.begun = (args, state, control, given)
        for name, tracker in self.open.items():
            if name == "tensorboard":
                root = os.environ.get("TENSORBOARD_LOGGING_DIR")
                where = Path(root).expanduser() if root else self.folder
                tracker.logging_dir = str(where / str(args.run_name))
            with _beginning(name):
                tracker.on_train_begin(args, state, control, **given)
        if state.global_step == 0:
            self.measured(0, self.first)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if self.open:
            self._log(logs | (self.extra() if "loss" in logs else {}), state.global_step)

    def measured(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Logs what a probing after update `step` measured; values that are None are left out."""
        known = {shown: numbers.get(name) for name, shown in MEASURED.items()}
        self._log({name: value for name, value in known.items() if value is not None}, step)

    def close(self) -> None:
        """Ends the trackers' runs."""
        self._each(lambda tracker, args, state, control, given: tracker.on_train_end(args, state, control, **given))
        for name in self.open.keys() & {"wandb", "swanlab"}:  # their callbacks leave the run open for the next arm
            import_module(name).finish()
        self.open = {}

    def _log(self, logs: dict[str, Any], step: int) -> None:
        def send(tracker: Any, args: Any, state: TrainerState, control: Any, given: Mapping[str, Any]) -> None:
            then = copy.copy(state)
            then.global_step = step
            tracker.on_log(args, then, control, logs=dict(logs), model=given.get("model"))

        if logs:
            self._each(send)

    def _each(self, act: Callable[..., None]) -> None:
        """Does something with every tracker; leaves one out, and says so, from its first error on."""
        if self.begun is None:
            return
        for name, tracker in list(self.open.items()):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of other libraries
                    act(tracker, *self.begun)
            except _BROKEN as error:
                del self.open[name]
                self.say(f"{name} failed ({type(error).__name__}: {_line(error)}); the run goes on without it")


def _with_steps(tracker: Any) -> Any:
    """Returns Transformers' callback, whose calls of trackio have the step that they log.

    Without one trackio counts calls, so that each probing would push all that follows one step on.
    """
    if hasattr(tracker, "_trackio"):
        tracker._trackio = _AtItsStep(tracker._trackio)
    return tracker


class _AtItsStep:
    """The package trackio, whose `log` takes the step from the number that Transformers logs beside the others."""

    def __init__(self, package: Any) -> None:
        self.package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(self.package, name)

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Logs metrics at their update."""
        self.package.log(metrics, step=metrics.get("train/global_step", step))


@contextmanager
def _beginning(name: str) -> Iterator[None]:
    """Turns every error of a tracker that begins a run into a ValueError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other libraries
            yield
    except Exception as error:
        raise ValueError(
            f"train.report_to: {name} could not begin a run ({type(error).__name__}: {_line(error)}); set it up as its "
            f"own documentation says, or leave {name} out of train.report_to"
        ) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
