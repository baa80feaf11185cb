"""The state of a run: which arm trains, at which update, and what was measured so far."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foci.report.measure import losses
from foci.report.read import Arm, read_run
from foci.report.words import number
from foci.system.folder import is_held

Stage = Literal["waits", "begins", "trains", "ends", "stopped", "done"]
"""The stage of an arm: it waits for its turn, is prepared, trains, is measured and saved, was stopped, or is done."""
MEASURED = ("learned_whole", "retained_whole", "bits_per_byte")
"""The measures that are shown: shares (0 to 1) of whole answers, and bits per byte of general text."""
RECENT = 20
"""Updates whose pace says how long the rest takes."""

Pair = dict[str, float | None]


@dataclass(frozen=True)
class ArmState:
    """One arm: its stage, its update of `updates` (None where that is not known), and what was measured.

    `loss` is the mean of the newest tenth of the updates, in nats; `seconds` those of training, `left` those that the
    rest of the training takes at the present pace. `measured` has a pair of numbers, before and now, by the names of
    `MEASURED`; `asked` is the update after which questions were asked last.
    """

    name: str
    stage: Stage
    update: int
    updates: int | None
    loss: float | None
    seconds: float | None
    left: float | None
    measured: Mapping[str, Pair]
    asked: int


@dataclass(frozen=True)
class State:
    """A run: its name, its model, its arms in order, whether a process works in it, and whether all arms are done."""

    folder: Path
    name: str
    model: str
    rows: int | None
    arms: tuple[ArmState, ...]
    works: bool
    early: bool

    @property
    def done(self) -> bool:
        """Whether every arm is done."""
        return all(arm.stage == "done" for arm in self.arms)


def read_state(folder: Path) -> State:
    """Reads what a run has written so far. Raises FileNotFoundError and ValueError as `read_run` does."""
    works = is_held(folder)  # before the files: what a run that ends now wrote last is read
    run = read_run(folder)
    train = given if isinstance(given := run.config.get("train"), dict) else {}
    finished = {arm.name for arm in run.arms if (arm.folder / "arm.json").is_file()}
    waiting = [arm.name for arm in run.arms if arm.name not in finished]
    arms = [_arm(arm, _stage(arm, finished, waiting, works=works), train, arm.folder) for arm in run.arms]
    rows = number(run.facts["corpus"].get("rows"))
    return State(
        folder, run.name, str(run.facts["model"] or ""), None if rows is None else int(rows), tuple(arms), works,
        early=train.get("patience") is not None,
    )  # fmt: skip


def _stage(arm: Arm, finished: set[str], waiting: list[str], *, works: bool) -> Stage:
    if arm.name in finished:
        return "done"
    if arm.name != waiting[0]:
        return "waits"
    if not works:
        return "stopped"
    return "trains" if arm.metrics else "begins"


def _arm(arm: Arm, stage: Stage, train: Mapping[str, Any], folder: Path) -> ArmState:
    last: Mapping[str, Any] = arm.metrics[-1] if arm.metrics else {}
    update = int(number(last.get("step")) or 0)
    updates = update if stage == "done" else _updates(last, train, folder)
    if stage == "trains" and updates is not None and update >= updates:
        stage = "ends"
    kept = number((arm.numbers.get("kept") or {}).get("step")) if stage == "done" else None
    asked = [p for p in arm.points if kept is None or p["step"] <= kept]
    now = asked[-1] if asked else {}
    first = arm.points[0] if arm.points and arm.points[0]["step"] == 0 else {}
    measured = {
        name: {"before": number(first.get(name)), "now": number(now.get(name)) if now.get("step") else None}
        for name in MEASURED
    }
    return ArmState(
        arm.name, stage, update, updates, losses(arm.metrics)["last"], number(last.get("seconds")),
        _left(arm.metrics, update, updates) if stage == "trains" else None, measured, int(now.get("step") or 0),
    )  # fmt: skip


def _updates(last: Mapping[str, Any], train: Mapping[str, Any], folder: Path) -> int | None:
    """Returns how many updates an arm makes: by the settings, else by a checkpoint, else by its epochs so far."""
    if (steps := number(train.get("steps"))) is not None:
        return int(steps)
    for file in folder.glob("checkpoints/step-*/trainer_state.json"):
        try:
            said = number(json.loads(file.read_text(encoding="utf-8")).get("max_steps"))
        except (ValueError, OSError, AttributeError):  # it is being deleted, or is damaged: the epochs say it
            continue
        if said is not None:
            return int(said)
    step, epoch = number(last.get("step")), number(last.get("epoch"))
    epochs, least = number(train.get("epochs")) or 1, int(number(train.get("least_steps")) or 0)
    return max(least, round(epochs * step / epoch)) if step and epoch else None


def _left(metrics: Sequence[Mapping[str, Any]], update: int, updates: int | None) -> float | None:
    """Returns the seconds that the updates left will take, by the pace of the newest ones; without the questions."""
    recent = [line for line in metrics[-RECENT:] if number(line.get("seconds")) is not None and line.get("step")]
    if updates is None or len(recent) < 2:
        return None
    steps = recent[-1]["step"] - recent[0]["step"]
    pace = (recent[-1]["seconds"] - recent[0]["seconds"]) / steps if steps > 0 else None
    return None if pace is None else max(0.0, pace * (updates - update))
