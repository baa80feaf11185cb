"""Finds in a run's folder the arm to talk to or to export, and what it has saved. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foci.config.run import Run, load_run
from foci.errors import hint
from foci.report.measure import best_arm
from foci.system.files import existing, read_json
from foci.system.run_folder import RunFolder


@dataclass(frozen=True)
class Chosen:
    """An arm of a run that is done. `folder` is the run's, `arm` the name, `saved` the arm's adapter/ or model/."""

    folder: Path
    run: Run
    arm: str
    saved: Path

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter was saved, which stands upon the untouched model."""
        return (self.saved / "adapter_config.json").is_file()


def choose(folder: Path, arm: str | None = None) -> Chosen:
    """Returns the arm of that name, else the best of those that are done.

    Raises FileNotFoundError where there is no such folder, ValueError, with the cure, for a folder that is no run, an
    arm that is not there or not done, and one whose model was deleted.
    """
    existing(folder, "run", "give the output folder of a `foci learn` run")
    if not (folder / "run.yaml").is_file():
        raise ValueError(_no_run(folder))
    run = load_run(folder)
    paths = RunFolder(folder, len(run.arms))
    done = {name: found for name in run.arms if (found := _result(paths.arm(name).result)) is not None}
    name = arm or (best_arm(done) if done else next(iter(run.arms)))
    if name not in run.arms:
        raise ValueError(f"run {folder} has no arm {name!r}; {hint(name, run.arms)}")
    if name not in done:
        others = f"; its arms that are done: {', '.join(done)}" if done else ""
        raise ValueError(
            f"arm {name!r} of run {folder} is not done, so it has no model yet{others}. Wait for it (foci watch "
            f"{folder}), or go on with: foci learn {folder} --resume"
        )
    below = paths.arm(name)
    for saved, file in ((below.adapter, "adapter_config.json"), (below.model, "config.json")):
        if (saved / file).is_file():
            return Chosen(folder, run, name, saved)
    raise ValueError(
        f"arm {name!r} of run {folder} has neither adapter/ nor model/ in {below.path}: they were deleted or moved; "
        "put one back, or train again with --overwrite"
    )


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"run {folder} is a file, expected the output folder of a `foci learn` run"
    if (folder / "suite.json").is_file() or (folder / "cells").is_dir():
        return f"{folder} holds a suite, expected a run; name one of its cells: {folder}/cells/ARM/seed-N"
    if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        return f"{folder} holds a model, expected a run; give the run's folder: {folder.parent}"
    return f"{folder} is not a run: there is no run.yaml in it; give the output folder of `foci learn`"


def _result(path: Path) -> dict[str, Any] | None:
    """Returns an arm's numbers; None where it is not done. Raises ValueError for a file that is damaged."""
    found = read_json(path)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: expected a JSON object, got {str(found)[:60]!r}; put the whole file back")
    return found
