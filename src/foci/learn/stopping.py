"""Early stopping: training ends where what is held out no longer improves, and the best update's weights are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foci.models import sharding
from foci.probes import Answer, read_answers
from foci.system import checkpoint, processes
from foci.system.files import read_lines
from foci.system.run_folder import ArmFolder

WEIGHTS = "weights.safetensors"
KEPT = 2
"""Best points on the disk: after a kill the newest may lie beyond the checkpoint that training goes on from."""


def score(answers: Sequence[Answer], texts: Mapping[str, Any]) -> float | None:
    """Returns how good a point is by what is held out, higher is better; None where nothing is.

    With held-out probes it is their learned + retained (means of accuracies, 0 to 1 each). Where they are not of both
    roles and rows are held out, it is the negative sum of the bits per byte of these rows and of the general text.
    """
    roles = [
        [a.accuracy for a in answers if a.held_out and a.counted and a.role == role] for role in ("learn", "retain")
    ]
    if probes_decide(answers, texts):
        return sum(sum(some) / len(some) for some in roles if some)
    if texts.get("held_out_bits_per_byte") is None:
        return None
    return -float(texts["held_out_bits_per_byte"] + (texts.get("bits_per_byte") or 0.0))


def probes_decide(answers: Sequence[Answer], texts: Mapping[str, Any]) -> bool:
    """Returns whether held-out probes say how good a point is: they are of both roles, or no row is held out."""
    roles = {answer.role for answer in answers if answer.held_out and answer.counted}
    return len(roles) == 2 or (len(roles) == 1 and texts.get("held_out_bits_per_byte") is None)


def scores(folder: ArmFolder) -> dict[int, float]:
    """Returns the score of every probed update of an arm but 0, the untouched model."""
    found = {}
    for line in read_lines(folder.texts):
        table = folder.probes(line["step"])
        known = score(read_answers(table) if table.exists() else [], line)
        if line["step"] and known is not None:
            found[line["step"]] = known
    return found


def best(scored: Mapping[int, float]) -> int:
    """Returns the update with the highest score, the first of equals.

    >>> best({2: 0.5, 4: 0.75, 6: 0.75})
    4
    """
    return max(scored, key=lambda step: (scored[step], -step))


def is_over(scored: Mapping[int, float], patience: int) -> bool:
    """Returns whether the last `patience` scores are no better than the best before them.

    >>> is_over({2: 0.5, 4: 0.75, 6: 0.75}, 1), is_over({2: 0.5, 4: 0.75, 6: 0.75}, 2)
    (True, False)
    """
    return bool(scored) and sum(step > best(scored) for step in scored) >= patience


class Stopping(TrainerCallback):
    """A callback that keeps the weights of the best probed update, and ends training by `is_over`.

    Put it after the callback that probes. What it decides is a function of the probes on the disk, so that a resumed
    run decides the same.
    """

    def __init__(self, patience: int, folder: ArmFolder) -> None:
        self.patience, self.folder = patience, folder
        self.scored = processes.from_first(lambda: scores(folder))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        self.on_step_end(args, state, control, model)  # what a signal left unasked was asked just now
        control.should_training_stop = control.should_training_stop or is_over(self.scored, self.patience)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        step = state.global_step
        if step and step not in self.scored and processes.from_first(lambda: _is_noted(self.folder, step)):
            self.note(model, step)
            control.should_training_stop = control.should_training_stop or is_over(self.scored, self.patience)

    def note(self, model: nn.Module, step: int) -> None:
        """Reads the score of an update that was probed; keeps the model's trained weights where it is the best.

        Raises ValueError where nothing is held out.
        """
        self.scored = processes.from_first(lambda: scores(self.folder))  # all must keep the same weights
        if step not in self.scored:
            raise ValueError(
                f"train.patience is {self.patience}, but nothing is held out that could say what is best; give "
                "probes.held_out, probes.held_out_share or corpus.held_out_share, or leave out train.patience"
            )
        if best(self.scored) == step:
            write(model, self.folder.best, step)


def _is_noted(folder: ArmFolder, step: int) -> bool:
    """Returns whether the texts of an update were measured."""
    return any(line["step"] == step for line in read_lines(folder.texts))


def write(model: nn.Module, root: Path, step: int) -> None:
    """Writes the weights that train, whole or not at all, and deletes all but the newest `KEPT`.

    The first process writes; of a sharded model every one must call it.
    """
    first, own = processes.is_first(), {name: p for name, p in model.named_parameters() if p.requires_grad}
    gathered = ((name, sharding.whole(p.detach())) for name, p in own.items() if first or sharding.is_sharded(model))
    trained = {name: value.cpu().contiguous() for name, value in gathered if first}
    if not first:
        return
    with checkpoint.staged(root, step) as staging:
        save_file(trained, staging / WEIGHTS)
    checkpoint.prune(root, KEPT, step)


def restore(model: nn.Module, root: Path, step: int) -> None:
    """Gives the model the weights that `write` wrote. Raises ValueError where they are not whole."""
    stored = load_file(checkpoint.require_complete(root / f"step-{step}") / WEIGHTS)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in stored.items():
            own[name].copy_(sharding.part_of(value, own[name]))


@dataclass(frozen=True)
class Ending:
    """How the training of an arm ended: its last update, the update that is kept, and why."""

    last: int
    kept: int
    early: bool
    on_probes: bool

    def words(self, patience: int) -> str:
        """Says in one sentence why training ended and which update is kept."""
        measure = "held-out probes (learned + retained)" if self.on_probes else "held-out text (bits per byte)"
        times = "once" if patience == 1 else f"{patience} times in a row"
        improved = "improved to the end" if self.kept == self.last else f"did not improve after update {self.kept}"
        why = (
            f"stopped after update {self.last}: {measure} did not improve, {times}"
            if self.early
            else f"trained to the last update, {self.last}: {measure} {improved}"
        )
        return f"{why}; update {self.kept} is the best and is kept"


def ending(folder: ArmFolder, last: int, patience: int, answers: Sequence[Answer]) -> Ending:
    """Returns how training ended; `answers` are those of the baseline."""
    scored = scores(folder)
    texts = (read_lines(folder.texts) or [{}])[0]
    return Ending(last, best(scored), is_over(scored, patience), probes_decide(answers, texts))
