"""Finds in a run's folder the arm to talk to, to export or to go on from, and what it saved. Imports no torch."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foci.config.run import Run, load_run
from foci.errors import hint
from foci.report.measure import best_arm
from foci.system.files import existing, read_json, sha256
from foci.system.run_folder import RunFolder

FILES = "files"
"""The key of arm.json that holds the hashes of the arm's files."""


@dataclass(frozen=True)
class Chosen:
    """An arm of a run that is done.

    `folder` is the run's, `arm` the name, `result` the content of its arm.json, `saved` its adapter/ or model/.
    """

    folder: Path
    run: Run
    arm: str
    result: dict[str, Any]
    saved: Path

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter was saved, which stands upon the untouched model."""
        return (self.saved / "adapter_config.json").is_file()

    @property
    def trained(self) -> Path:
        """The folder of the weights that were trained: the adapter, or all weights."""
        own = RunFolder(self.folder, len(self.run.arms)).arm(self.arm)
        return own.model if self.run.adapter is None else own.adapter

    def check_weights(self, place: Path) -> None:
        """Raises ValueError, which names the file, where the arm's adapter/ or model/ is not what the run wrote."""
        check_weights(place, self.result, self.run, f"foci learn {shlex.quote(str(self.folder))} --resume")


def choose(folder: Path, arm: str | None = None, *, whole: bool = False) -> Chosen:
    """Returns the arm of that name, else the best of those that are done; `whole`: all must be, where none is named.

    Raises FileNotFoundError where there is no such folder, ValueError, with the cure, for a folder that is no run, an
    arm that is not there or not done, and one whose model was deleted.
    """
    existing(folder, "run", "give the output folder of a `foci learn` run")
    if not (folder / "run.yaml").is_file():
        raise ValueError(_no_run(folder))
    run = load_run(folder)
    paths = RunFolder(folder, len(run.arms))
    done = {name: found for name in run.arms if (found := _result(paths.arm(name).result)) is not None}
    waiting = [name for name in run.arms if name not in done]
    name = arm or (waiting[0] if waiting and (whole or not done) else best_arm(done))
    if name not in run.arms:
        raise ValueError(f"run {folder} has no arm {name!r}; {hint(name, run.arms)}")
    if name not in done:
        others = f"; its arms that are done: {', '.join(done)}" if done else ""
        raise ValueError(
            f"arm {name!r} of run {folder} is not done, so it has no model yet{others}. Wait for it (foci watch "
            f"{shlex.quote(str(folder))}), or go on with: foci learn {shlex.quote(str(folder))} --resume"
        )
    below = paths.arm(name)
    for saved, file in ((below.adapter, "adapter_config.json"), (below.model, "config.json")):
        if (saved / file).is_file():
            return Chosen(folder, run, name, done[name], saved)
    raise ValueError(
        f"arm {name!r} of run {folder} has neither adapter/ nor model/ in {below.path}: they were deleted or moved; "
        "put one back, or train again with --overwrite"
    )


def check_weights(place: Path, result: Mapping[str, Any], run: Run, again: str) -> None:
    """Raises ValueError, which names the file, where an adapter/ or model/ is not what the run wrote.

    `result` is the content of arm.json, `again` the command that writes the arm's files again. A run of an earlier
    version noted the hashes of the trained weights alone (the adapter's where there is one); others are not compared.
    """
    known = (result.get(FILES) or {}).items()
    noted = {Path(name).name: str(digest) for name, digest in known if Path(name).parent.name == place.name}
    if not noted and (place.name == "model") != (run.adapter is None):
        return
    there = {file.name: sha256(file) for file in sorted(place.glob("*.safetensors"))}
    wanted = noted or _noted_before(result, there)
    if not wanted:
        return
    if wrong := [name for name in sorted({*wanted, *there}) if wanted.get(name) != there.get(name)]:
        digests = ", expected ".join(found.get(wrong[0], "none")[:12] for found in (there, wanted))
        raise ValueError(
            f"the weights in {place / wrong[0]} are not those that the run wrote (SHA-256 {digests}); put the old file "
            f"back, or write it again with: {again}"
        )


def _noted_before(result: Mapping[str, Any], there: Mapping[str, str]) -> dict[str, str]:
    """Returns the hashes by file that an earlier version noted: of one file the hash alone, else a JSON object."""
    noted = str(result.get("weights_sha256", ""))
    if not noted:
        return {}
    found = json.loads(noted) if noted.startswith("{") else {}
    return found or dict.fromkeys(there, noted) or {"model.safetensors": noted}


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"run {folder} is a file, expected the output folder of a `foci learn` run"
    if (folder / "suite.json").is_file() or (folder / "cells").is_dir():
        return f"{folder} holds a suite, expected a run; name one of its cells: {folder}/cells/ARM/seed-N"
    if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        above = next((place for place in folder.parents if (place / "run.yaml").is_file()), None)
        arm = f" --arm {folder.parent.name}" if above is not None and folder.parent.parent.name == "arms" else ""
        cure = (
            f"give the run's folder: {above}{arm}" if above is not None else "give the folder of the run that wrote it"
        )
        return f"{folder} holds a model, expected a run; {cure}"
    above = folder.parent.parent if folder.parent.name == "arms" else None
    if above is not None and (above / "run.yaml").is_file():
        return f"{folder} holds one arm of a run; give the run's folder: {above} --arm {folder.name}"
    return f"{folder} is not a run: there is no run.yaml in it; give the output folder of `foci learn`"


def _result(path: Path) -> dict[str, Any] | None:
    """Returns an arm's numbers; None where it is not done. Raises ValueError for a file that is damaged."""
    found = read_json(path)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: expected a JSON object, got {str(found)[:60]!r}; put the whole file back")
    return found
