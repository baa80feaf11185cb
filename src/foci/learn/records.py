"""Hashes of what an arm writes, so that a resume goes on from nothing damaged.

A checkpoint keeps, in `trainer_state.json`, the length and the hash of every file that the arm had written by then: a
resume goes on from the newest checkpoint whose files are as they were, and cuts off what was written after it. The
result of a finished arm keeps the hashes of all its files.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from foci.learn.chosen import FILES
from foci.system.files import read_json, write_json
from foci.system.inputs import damaged, hashes
from foci.system.run_folder import ArmFolder

WEIGHTS = ("model", "adapter")
"""Folders that may be deleted after an arm was finished."""


class Records(TrainerCallback, ExportableState):
    """A callback that has every checkpoint keep the lengths and hashes of the arm's files."""

    def __init__(self, folder: ArmFolder) -> None:
        self.folder = folder

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.stateful_callbacks is not None:  # a checkpoint of an earlier version has no place for it
            state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps: (bytes, SHA-256) of every file, by name."""
        found = {}
        for file in _written(self.folder):
            raw = file.read_bytes()
            found[file.relative_to(self.folder.path).as_posix()] = [len(raw), hashlib.sha256(raw).hexdigest()]
        return {"args": {}, "attributes": {FILES: found}}


def why_changed(folder: ArmFolder, checkpoint: Path) -> str | None:
    """Returns why an arm cannot go on from a complete checkpoint: a file is not as it was then; None where all are."""
    for name, (size, digest) in _kept(checkpoint).items():
        file = folder.path / name
        if not file.is_file():
            return f"{name}, which was there when it was written, is missing"
        with file.open("rb") as opened:
            if hashlib.sha256(opened.read(size)).hexdigest() != digest:
                return f"{name} is damaged: it is not as it was when the checkpoint was written"
    return None


def cut(folder: ArmFolder, checkpoint: Path) -> None:
    """Cuts off the lines that were written after a checkpoint; their updates are computed again."""
    for name, (size, _) in _kept(checkpoint).items():
        if name.endswith(".jsonl"):
            os.truncate(folder.path / name, size)


def finish(folder: ArmFolder, result: dict[str, Any]) -> None:
    """Writes arm.json: the result of an arm, and the hashes of its files."""
    weights = (file for name in WEIGHTS for file in (folder.path / name).glob("*.safetensors"))
    others = (folder.samples, folder.maps, folder.earlier)
    kept = hashes(folder.path, [*_written(folder), *others, *weights])
    write_json(folder.result, {**result, FILES: kept}, sealed=True)


def finished(folder: ArmFolder, tell: Callable[[str], object], *, stops: bool) -> dict[str, Any] | None:
    """Returns the result of a finished arm; None where it is not finished, or where a file is damaged, which is told.

    A damaged arm is finished again from its last checkpoint; one that `stops` early (`foci.learn.stopping`) is trained
    again, because its best weights are no longer there.
    """
    try:
        result = read_json(folder.result)
        if result is None or (isinstance(result, dict) and "steps" in result):
            wrong = damaged(folder.path, (result or {}).pop(FILES, None), WEIGHTS)
        else:
            wrong = [folder.result.name]
    except ValueError:
        result, wrong = None, [folder.result.name]
    if not wrong:
        return result
    tell(f"{wrong[0]} is damaged: the arm is {'trained' if stops else 'finished'} again")
    folder.result.unlink()
    if stops:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return None


def _written(folder: ArmFolder) -> list[Path]:
    """Returns the files that an arm writes during training and that are there."""
    files = [folder.metrics, folder.texts, folder.guided, *sorted(folder.path.glob("probes/step-*.parquet"))]
    return [file for file in files if file.is_file()]


def _kept(checkpoint: Path) -> dict[str, tuple[int, str]]:
    """Returns what `Records` kept in a checkpoint; nothing for one of an earlier version."""
    kept = (read_json(checkpoint / "trainer_state.json") or {}).get("stateful_callbacks") or {}
    files = kept.get(Records.__name__, {}).get("attributes", {}).get(FILES, {})
    return {name: (size, digest) for name, (size, digest) in files.items()}
