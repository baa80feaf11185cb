"""The folders of a run and of its arms: the path of each file. Imports no torch."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from foci.system.checkpoint import step_of
from foci.system.files import read_lines, write_lines
from foci.system.folder import FolderKind

READ = (
    "rows.parquet",
    "held_out.parquet",
    "quarantine.jsonl",
    "corpus.json",
    "probes.jsonl",
    "made_probes.jsonl",
    "evidence.json",
    "text.txt",
    "baseline",
)
"""Files of what a run reads and asks before it starts."""
RUN = FolderKind(
    "run",
    "run.yaml",
    early=(*READ, "earlier"),
    started="start.json",
    later=("model.bits: null", "train.batch_tokens: null", "train.packing: false"),
    free=("train.fsdp", "model.on_disk"),
)


class ArmFolder:
    """The paths of one arm's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.texts = path / "probes" / "text.jsonl"
        self.samples = path / "samples.json"
        self.model = path / "model"
        self.adapter = path / "adapter"
        self.best = path / "best"
        self.result = path / "arm.json"
        self.scores = path / "scores"
        self.guided = path / "guided.jsonl"
        self.maps = path / "maps.json"
        self.trackers = path / "trackers.json"
        self.tensorboard = path / "tensorboard"
        self.earlier = path / "earlier.parquet"

    def probes(self, step: int) -> Path:
        """Returns the path of the answers after update `step`; 0 is the frozen baseline."""
        return self.path / "probes" / f"step-{step:06d}.parquet"

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Deletes everything that was written after update `step`; returns the metrics up to it."""
        metrics = [line for line in read_lines(self.metrics) if line["step"] <= step]
        write_lines(self.metrics, metrics)
        write_lines(self.texts, [line for line in read_lines(self.texts) if line["step"] <= step])
        if self.guided.is_file():
            write_lines(self.guided, [line for line in read_lines(self.guided) if line["step"] <= step])
        for table in self.path.glob("probes/step-*.parquet"):
            if step_of(table.with_suffix("")) > step:
                table.unlink()
        for root in (self.checkpoints, self.best):
            for folder in root.glob("step-*"):
                if step_of(folder) > step:  # a checkpoint: not whole, or it would have been the one to go on from
                    shutil.rmtree(folder)
            for folder in root.glob(".staging-*"):
                shutil.rmtree(folder)
        return metrics


class RunFolder:
    """The paths of a run's files. A run with one arm keeps the arm's files beside its own."""

    def __init__(self, path: Path, arms: int) -> None:
        self.path, self.single = path, arms == 1
        self.config = path / "run.yaml"
        self.rows = path / "rows.parquet"
        self.held_out = path / "held_out.parquet"
        self.quarantine = path / "quarantine.jsonl"
        self.corpus = path / "corpus.json"
        self.questions = path / "probes.jsonl"
        self.made = path / "made_probes.jsonl"
        self.evidence = path / "evidence.json"
        self.text = path / "text.txt"
        self.start = path / "start.json"
        self.baseline = path / "baseline"
        self.earlier_state = path / "earlier" / "state.json"
        self.earlier_rows = path / "earlier" / "rows.parquet"
        self.earlier_probes = path / "earlier" / "probes.jsonl"
        self.untouched = path / "earlier" / "untouched.parquet"
        self.summary = path / "summary.json"
        self.report = path / "report.html"

    def of_start(self) -> list[Path]:
        """Returns the files that were written before the first update and are read again."""
        own = [self.rows, self.held_out, self.quarantine, self.corpus, self.questions, self.made, self.evidence]
        earlier = [self.earlier_state, self.earlier_rows, self.earlier_probes, self.untouched]
        answers = self.baseline / "probes.parquet"
        return [file for file in (*own, self.text, answers, *earlier) if file.is_file()]

    def arm(self, name: str) -> ArmFolder:
        """Returns the folder of one arm."""
        return ArmFolder(self.path if self.single else self.path / "arms" / name)

    def link(self, name: str) -> None:
        """Links model/ and adapter/ beside run.yaml to those of one arm; does nothing where links are not possible."""
        if self.single:
            return
        for kind in ("model", "adapter"):
            link, target = self.path / kind, Path("arms") / name / kind
            with suppress(OSError):  # such as a folder in its place, where the run was copied with its links followed
                link.unlink(missing_ok=True)
                if (self.path / target).is_dir():
                    link.symlink_to(target, target_is_directory=True)
