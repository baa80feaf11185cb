"""A run's folder: where each file lies, and whose it is."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foci.config.run import Run, dump_run
from foci.system.checkpoint import DiskFull, step_of
from foci.system.files import read_lines, write_lines, write_text
from foci.system.folder import LOCK, MADE_FIRST, clear, locked

FULL = ("no space left", "unexpected pos", "iostream error")
"""Words by which Rust's and PyTorch's writers report a full disk (the latter two: `torch.save`)."""
BEGUN = (LOCK, ".run.yaml.part")
"""Files that a run may leave when it ends before its run.yaml is written."""


class ArmFolder:
    """Where one arm keeps its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.texts = path / "probes" / "text.jsonl"
        self.samples = path / "samples.json"
        self.model = path / "model"
        self.adapter = path / "adapter"
        self.result = path / "arm.json"
        self.scores = path / "scores"
        self.guided = path / "guided.jsonl"
        self.maps = path / "maps.json"

    def probes(self, step: int) -> Path:
        """The probe table of one step; step 0 is the frozen baseline."""
        return self.path / "probes" / f"step-{step:06d}.parquet"

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Forgets what was written after `step`; returns the metrics up to it."""
        metrics = [line for line in read_lines(self.metrics) if line["step"] <= step]
        write_lines(self.metrics, metrics)
        write_lines(self.texts, [line for line in read_lines(self.texts) if line["step"] <= step])
        if self.guided.is_file():
            write_lines(self.guided, [line for line in read_lines(self.guided) if line["step"] <= step])
        for table in self.path.glob("probes/step-*.parquet"):
            if step_of(table.with_suffix("")) > step:
                table.unlink()
        for folder in self.checkpoints.glob("step-*"):
            if step_of(folder) > step:  # not whole, or it would have been the one to go on from
                shutil.rmtree(folder)
        for folder in self.checkpoints.glob(".staging-*"):
            shutil.rmtree(folder)
        return metrics


class RunFolder:
    """Where a run keeps its files. A run with one arm keeps the arm's files beside its own."""

    def __init__(self, path: Path, arms: int) -> None:
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

    def link(self, name: str) -> None:
        """Lets model/ and adapter/ beside run.yaml be those of one arm; nothing where links are not to be had."""
        if self.single:
            return
        for kind in ("model", "adapter"):
            link, target = self.path / kind, Path("arms") / name / kind
            link.unlink(missing_ok=True)
            if (self.path / target).is_dir():
                with suppress(OSError):
                    link.symlink_to(target, target_is_directory=True)


@contextmanager
def opened(run: Run, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """The run's folder, new or its own again, locked against a second process.

    Raises FileExistsError for a folder that holds something else, another run, or this run without being told what
    to do with it.
    """
    path, text = run.output, dump_run(run)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"output {path} is a file, expected a folder or nothing; name another one")
    config, known = path / "run.yaml", any((path / name).is_file() for name in (LOCK, "start.json"))
    if path.exists() and not config.is_file() and any(child.name not in BEGUN for child in path.iterdir()):
        raise FileExistsError(f"output {path} holds files but no run.yaml, so it is not a run's; name another folder")
    if config.is_file() and not known:  # somebody's own file, or a copy of a run
        if overwrite:
            raise FileExistsError(f"output {path} has a run.yaml but no start.json, so it is not a run's; name another")
        _check_same(config, text, resume)
    with locked(path):
        if config.is_file() and overwrite and known:
            clear(path)
        elif config.is_file() and known and not (path / "start.json").is_file():
            clear(path, MADE_FIRST)  # input was refused, or a kill came before the baseline: there is nothing to lose
        elif config.is_file():
            _check_same(config, text, resume)
        with _told_when_full(path):
            write_text(config, text)
            yield RunFolder(path, len(run.arms))


def _check_same(config: Path, text: str, resume: bool) -> None:
    """Refuses a folder that holds another run, or this run when nobody said to go on."""
    if config.read_text(encoding="utf-8") != text:
        raise FileExistsError(
            f"output {config.parent} belongs to another run (its run.yaml differs: {_first_difference(config, text)}); "
            "name another output, or replace that run with --overwrite"
        )
    if not resume:
        raise FileExistsError(
            f"output {config.parent} already holds this run; continue it with --resume, or start again with --overwrite"
        )


@contextmanager
def _told_when_full(path: Path) -> Iterator[None]:
    """Turns the many errors of a full disk into one that says what to do."""
    try:
        yield
    except Exception as error:
        told = any(words in str(error).lower() for words in FULL)
        if not (told or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)) or isinstance(error, DiskFull):
            raise
        free = shutil.disk_usage(path).free / 2**20
        raise DiskFull(
            errno.ENOSPC,
            f"the disk is full: {getattr(error, 'filename', None) or path} could not be written ({free:.1f} MiB left); "
            "what was finished before is intact. Free some space and go on with --resume",
        ) from error


def _first_difference(config: Path, text: str) -> str:
    here = config.read_text(encoding="utf-8").splitlines()
    there = text.splitlines()
    for a, b in zip(here, there, strict=False):
        if a != b:
            return f"{a.strip()!r} there, {b.strip()!r} here"
    return f"{len(here)} lines there, {len(there)} here"
