"""The files of a slide: the answers at each share, kept so that the same command goes on where it stopped.

slide.json                                   what the table and the report show, in the run's folder
slide/<how>/points.jsonl  at-0.2500.parquet  the shares that were asked, in the arm's folder
slide/keep-0.95/model  adapter               a model that `--keep` wrote
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from foci.probes import Answer, read_answers, write_answers
from foci.system.files import append_line, read_json, read_lines, write_json
from foci.system.run_folder import ArmFolder


class SlideFolder:
    """The paths of one arm's slide, and the points in it."""

    def __init__(self, arm: ArmFolder, how: str) -> None:
        self.path = arm.path / "slide" / how
        self.points = self.path / "points.jsonl"
        self.made = self.path / "made.json"
        self.arm = arm

    def begin(self, key: Mapping[str, Any]) -> None:
        """Deletes points of another model or other questions, so that only points of `key` are there."""
        if read_json(self.made) != dict(key):
            shutil.rmtree(self.path, ignore_errors=True)
            write_json(self.made, dict(key))

    def give_up(self, model: str, why: str) -> None:
        """Notes why this arm's model (by the SHA-256 of its weights) cannot be asked along its change."""
        shutil.rmtree(self.path, ignore_errors=True)
        write_json(self.made, {"model": model, "why_not": why})

    def missing(self, model: str, shares: Collection[float]) -> list[float]:
        """Returns the shares of this model's change that are still to be asked; none where that was given up."""
        made = read_json(self.made) or {}
        if made.get("model") != model:
            return sorted(shares)
        return [] if "why_not" in made else sorted(set(shares) - self.known().keys())

    def known(self) -> dict[float, dict[str, Any]]:
        """Returns the points that were asked, by share: their further measures."""
        return {line["at"]: line for line in read_lines(self.points)}

    def answers(self, share: float) -> list[Answer]:
        """Reads the answers at a share that was asked."""
        return read_answers(self._table(share))

    def write(
        self, share: float, answers: Sequence[Answer], baseline: Sequence[Answer], texts: Mapping[str, Any]
    ) -> None:
        """Writes a point; it counts from its line in points.jsonl on."""
        write_answers(self._table(share), answers, baseline)
        append_line(self.points, {"at": share, **texts})

    def written(self, keep: float) -> Path:
        """Returns the folder of the model that `--keep` writes."""
        return self.arm.path / "slide" / f"keep-{keep:g}"

    def _table(self, share: float) -> Path:
        return self.path / f"at-{share:.6f}.parquet"
