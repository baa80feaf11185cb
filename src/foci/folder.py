"""A run's folder: where each file lies, and whose it is."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foci.checkpoint import step_of, write_text
from foci.config import Run, dump_run


class ArmFolder:
    """Where one arm keeps its files."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.texts = path / "probes" / "text.jsonl"
        self.samples = path / "samples.json"
        self.model = path / "model"
        self.adapter = path / "adapter"
        self.result = path / "arm.json"
        self.scores = path / "scores"

    def probes(self, step: int) -> Path:
        """The probe table of one step; step 0 is the frozen baseline."""
        return self.path / "probes" / f"step-{step:06d}.parquet"

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Forgets what was written after `step`; returns the metrics up to it."""
        metrics = [line for line in read_lines(self.metrics) if line["step"] <= step]
        write_lines(self.metrics, metrics)
        write_lines(self.texts, [line for line in read_lines(self.texts) if line["step"] <= step])
        for table in self.path.glob("probes/step-*.parquet"):
            if step_of(table.with_suffix("")) > step:
                table.unlink()
        return metrics


class RunFolder:
    """Where a run keeps its files. A run with one arm keeps the arm's files beside its own."""

    def __init__(self, path: Path, arms: int):
        self.path, self.single = path, arms == 1
        self.config = path / "run.yaml"
        self.rows = path / "rows.parquet"
        self.quarantine = path / "quarantine.jsonl"
        self.corpus = path / "corpus.json"
        self.questions = path / "probes.jsonl"
        self.text = path / "text.txt"
        self.start = path / "start.json"
        self.baseline = path / "baseline"
        self.summary = path / "summary.json"
        self.report = path / "report.html"

    def arm(self, name: str) -> ArmFolder:
        """The folder of one arm."""
        return ArmFolder(self.path if self.single else self.path / "arms" / name)


@contextmanager
def opened(run: Run, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """The run's folder, new or its own again, locked against a second process.

    Raises FileExistsError for a folder that holds something else, another run, or this run without being told what
    to do with it.
    """
    path, text = run.output, dump_run(run)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"output {path} is a file, expected a folder or nothing; name another one")
    config = path / "run.yaml"
    if path.exists() and any(path.iterdir()):
        if not config.is_file():
            raise FileExistsError(f"output {path} holds files but no run.yaml, so it is not a run's; name another folder")
        if overwrite:
            _clear(path)
        elif config.read_text(encoding="utf-8") != text:
            raise FileExistsError(
                f"output {path} belongs to another run (its run.yaml differs: {_first_difference(config, text)}); name "
                "another output, or replace that run with --overwrite"
            )
        elif not resume:
            raise FileExistsError(f"output {path} already holds this run; continue it with --resume, or start again with --overwrite")
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"another process is working in {path}; wait for it, or name another output") from None
        write_text(config, text)
        yield RunFolder(path, len(run.arms))


def _clear(path: Path) -> None:
    """Deletes a run's files."""
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _first_difference(config: Path, text: str) -> str:
    here = config.read_text(encoding="utf-8").splitlines()
    there = text.splitlines()
    for a, b in zip(here, there, strict=False):
        if a != b:
            return f"{a.strip()!r} there, {b.strip()!r} here"
    return f"{len(here)} lines there, {len(there)} here"


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, all or nothing."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line that was torn off is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def write_lines(path: Path, values: list[dict[str, Any]]) -> None:
    """Writes a JSONL file, all or nothing."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Adds one object to a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
