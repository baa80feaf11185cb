"""Runs that are killed, stopped, or run out of disk: what is there is whole, and going on ends in the same bits."""

import errno
import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedModel

import runs
from foci.config.run import load_run
from foci.learn import callbacks
from foci.learn.folder import opened
from foci.learn.run import learn
from foci.system import checkpoint, files
from foci.system.checkpoint import DiskFull
from foci.system.signals import Interrupted, Stop, stoppable


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, things):
    """The folder of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    runs.finished(["learn", runs.run_file(folder, things)], folder)
    return folder / "out"


def outcome(out: Path) -> dict:
    """All that a run found, but for the time it took."""
    arms = {}
    for name, arm in json.loads((out / "summary.json").read_text())["arms"].items():
        folder = out / "arms" / name
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        tables = {path.name: pq.read_table(path).to_pylist() for path in folder.glob("probes/*.parquet")}
        arms[name] = (
            {key: value for key, value in arm.items() if key not in ("seconds", "peak_memory_mib")},
            [{key: value for key, value in line.items() if key != "seconds"} for line in metrics],
            (folder / "probes" / "text.jsonl").read_text(),
            (folder / "samples.json").read_text(),
            tables,
            {path.name: files.sha256(path) for path in folder.glob("model/*.safetensors")},
            sorted(path.name for path in (folder / "checkpoints").iterdir()),
        )
    return arms


def assert_same(out: Path, whole: Path, *, checkpoints: bool = True) -> None:
    expected, found = outcome(whole), outcome(out)
    assert expected.keys() == found.keys()
    for arm in expected:
        for a, b in zip(expected[arm][:-1], found[arm][:-1], strict=True):
            assert a == b
        if checkpoints:
            assert expected[arm][-1] == found[arm][-1]
    assert not [path for path in out.rglob("*") if path.name.endswith(".part") or path.name.startswith(".staging")]


KILLS = {
    "before run.yaml": ("foci.learn.folder.write_text", 1),
    "while the baseline is written": ("foci.learn.baseline.write_answers", 1),
    "before the first update is logged": ("foci.learn.callbacks.append_line", 1),
    "while the first checkpoint is written": ("foci.system.checkpoint.seal", 1),
    "between checkpoints": ("foci.learn.callbacks.append_line", 4),
    "while files of a checkpoint are flushed": ("foci.system.checkpoint.flush", 12),
    "while old checkpoints are deleted": ("foci.system.checkpoint.prune", 2),
    "while a probe table is written": ("foci.probes.table.pq.write_table", 2),
    "while adapter/ is written": ("foci.system.files._take_place", 1),
    "while model/ is written": ("foci.system.files._take_place", 2),
    "between arms": ("foci.learn.arm.load", 2),
    "in the second arm": ("foci.learn.callbacks.append_line", 4),
    "while the report is written": ("foci.learn.run.write_report", 1),
}
"""In this order; each process goes on where the one before it was killed."""


def test_killed_at_every_stage(tmp_path, things, whole):
    file = runs.run_file(tmp_path, things)
    for name, count in KILLS.values():
        runs.finished(["learn", file, "--resume"], tmp_path, code=-signal.SIGKILL, moment=(name, count, signal.SIGKILL))
    runs.finished(["learn", file, "--resume"], tmp_path)
    assert_same(tmp_path / "out", whole)


def test_killed_from_outside_again_and_again(tmp_path, things, whole):
    """Whenever a few more lines of metrics are there; every process gets a little further."""
    file, out = runs.run_file(tmp_path, things), tmp_path / "out"

    def written() -> int:
        return sum(path.read_text().count("\n") for path in out.glob("arms/*/metrics.jsonl"))

    for lines in (2, 13):
        child = runs.start(["learn", file, "--resume"], tmp_path, slow=0.03)
        child.until(lambda lines=lines: written() >= lines)
        child.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    last = runs.finished(["learn", file, "--resume"], tmp_path)
    assert "resumes after update" in last.out.read_text()
    assert_same(out, whole)


def test_a_torn_last_line_of_metrics_is_written_again(tmp_path, things, whole):
    file = runs.run_file(tmp_path, things)
    runs.finished(
        ["learn", file], tmp_path, code=-signal.SIGKILL, moment=("foci.learn.callbacks.append_line", 6, signal.SIGKILL)
    )
    with (tmp_path / "out" / "arms" / "plain" / "metrics.jsonl").open("a") as file_:
        file_.write('{"step": 6, "lo')
    runs.finished(["learn", file, "--resume"], tmp_path)
    assert_same(tmp_path / "out", whole)


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, things, whole):
    file = runs.run_file(tmp_path, things)
    runs.finished(
        ["learn", file], tmp_path, code=-signal.SIGKILL, moment=("foci.learn.callbacks.append_line", 6, signal.SIGKILL)
    )
    (tmp_path / "out" / "arms" / "plain" / "checkpoints" / "step-4" / "optimizer.pt").unlink()
    said = runs.finished(["learn", file, "--resume"], tmp_path).out.read_text()
    assert "skipped checkpoint step-4: optimizer.pt is missing" in said
    assert "resumes after update 2" in said
    assert_same(tmp_path / "out", whole)


def test_a_signal_saves_and_says_how_to_go_on(tmp_path, things, whole):
    """Ctrl-C, then SIGTERM, then to the end."""
    file, out = runs.run_file(tmp_path, things), tmp_path / "out"
    target, last = file, 0
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        moment = ("foci.learn.callbacks.append_line", 3, signum)
        child = runs.finished(["learn", target, "--resume"], tmp_path, code=code, moment=moment)
        words = child.err.read_text()
        assert "a checkpoint is written after this update" in words
        assert f"stopped by {signal.Signals(signum).name}; go on with: foci learn {out} --resume" in words
        assert "Traceback" not in words
        saved = checkpoint.newest(out / "arms" / "plain" / "checkpoints")[0]
        updates = (out / "arms" / "plain" / "metrics.jsonl").read_text().count("\n")
        assert checkpoint.step_of(saved) == updates > last  # nothing that was done is done again
        target, last = out, updates
    runs.finished(["learn", out, "--resume"], tmp_path)
    assert_same(out, whole, checkpoints=False)


def test_a_signal_outside_of_training_stops_at_once(tmp_path, things, whole):
    file = runs.run_file(tmp_path, things)
    for name in ("foci.learn.inputs.read_corpus", "foci.learn.baseline.write_answers", "foci.learn.arm.save"):
        child = runs.finished(["learn", file, "--resume"], tmp_path, code=143, moment=(name, 1, signal.SIGTERM))
        runs.assert_one_paragraph(child.err.read_text())
        assert "stopped by SIGTERM; go on with: foci learn" in child.err.read_text()
    runs.finished(["learn", file, "--resume"], tmp_path)
    assert_same(tmp_path / "out", whole)


def test_a_signal_while_questions_are_asked_does_not_wait_for_the_answers(tmp_path, things, whole):
    """The checkpoint is written at once, and the resume asks what was not answered."""
    file, out = runs.run_file(tmp_path, things), tmp_path / "out"
    moment = ("foci.probes.asking.encode", 2, signal.SIGTERM)  # the first is the baseline's
    words = runs.finished(["learn", file], tmp_path, code=143, moment=moment).err.read_text()
    assert "a checkpoint is written now, and what is being asked is asked again later" in words
    assert "Traceback" not in words
    arm = out / "arms" / "plain"
    assert checkpoint.newest(arm / "checkpoints")[0].name == "step-3"
    assert not (arm / "probes" / "step-000003.parquet").exists()
    again = ("foci.probes.asking.encode", 1, signal.SIGTERM)  # a second time, when the resume asks first
    runs.finished(["learn", out, "--resume"], tmp_path, code=143, moment=again)
    assert checkpoint.newest(arm / "checkpoints")[0].name == "step-3"
    runs.finished(["learn", out, "--resume"], tmp_path)
    assert_same(out, whole, checkpoints=False)


def test_a_second_signal_ends_at_once(tmp_path, things):
    file, metrics = runs.run_file(tmp_path, things), tmp_path / "out" / "arms" / "plain" / "metrics.jsonl"
    child = runs.start(["learn", file], tmp_path, slow=1.5)
    child.until(metrics.is_file)
    child.until(metrics.read_text)
    child.signal(signal.SIGINT)
    child.until(lambda: "again to quit at once" in child.err.read_text())
    assert child.process.is_alive()
    child.signal(signal.SIGINT)
    assert child.wait(5) == 130


def test_stop_asks_first_and_puts_handlers_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as found, stoppable() as stop, stop.deferring():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM  # and the block goes on
    assert found.value.code == 143
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(Interrupted, match="SIGINT"):
        Stop().ask(signal.SIGINT)
    assert not issubclass(Interrupted, Exception)


# ---- one folder, one run, one process ----


def test_two_processes_in_one_folder(tmp_path, things, capsys):
    file = runs.run_file(tmp_path, things)
    child = runs.start(["learn", file], tmp_path, slow=0.05)
    child.until((tmp_path / "out" / "start.json").is_file)
    for flag in ("--resume", "--overwrite"):
        assert "another process is working in" in runs.refused(["learn", file, flag], capsys)
    assert child.wait() == 0  # and the first is not disturbed


def test_overwrite_deletes_results_before_what_they_came_from(tmp_path, things, whole):
    """Killed while it deletes: the folder is still this run's, and nothing old is taken for new."""
    shutil.copytree(whole, tmp_path / "out")
    file = runs.run_file(tmp_path, things)
    text = (whole / "run.yaml").read_text().replace(str(whole), str(tmp_path / "out"))
    (tmp_path / "out" / "run.yaml").write_text(text)
    runs.finished(
        ["learn", file, "--overwrite"], tmp_path, code=-9, moment=("foci.system.folder.Path.unlink", 3, signal.SIGKILL)
    )
    assert (tmp_path / "out" / "run.yaml").is_file()
    assert not (tmp_path / "out" / "arms").exists()
    runs.finished(["learn", file, "--resume"], tmp_path)
    assert_same(tmp_path / "out", whole)


def test_a_folder_is_whose_it_is(tmp_path, things):
    run = load_run(runs.run_file(tmp_path, things))
    with opened(run, resume=False, overwrite=False) as folder:
        (folder.path / "arms").mkdir()
        folder.start.write_text("{}")
        assert folder.arm("plain").path == run.output / "arms" / "plain"
    with (
        pytest.raises(FileExistsError, match=r"already holds this run; continue it with --resume"),
        opened(run, resume=False, overwrite=False),
    ):
        pass
    with opened(run, resume=False, overwrite=True):
        assert not (run.output / "arms").exists()


# ---- a full disk ----


@contextmanager
def small_disk(path: Path, size: str):
    """A file system of a few MiB at `path`; the test is skipped where that is not allowed."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_real_disk_runs_full(tmp_path, things, whole):
    """Filled up after the first checkpoint; the run says so, keeps what it had, and goes on when there is room."""
    file, out = runs.run_file(tmp_path, things), tmp_path / "out"
    with small_disk(out, "24m"):
        child = runs.start(["learn", file], tmp_path, slow=0.3)
        first = out / "arms" / "plain" / "checkpoints" / "step-2"
        child.until(first.is_dir)
        filler = out / ".run.yaml.part"
        with filler.open("wb") as file_:
            size = shutil.disk_usage(out).free - 100_000
            file_.write(b"x" * size)
        assert child.wait() == 1
        words = child.err.read_text()
        runs.assert_one_paragraph(words)
        assert "the disk is full: " in words
        assert "is intact" in words
        assert checkpoint.why_incomplete(first) is None
        filler.unlink()
        runs.finished(["learn", file, "--resume"], tmp_path)
        assert_same(out, whole)


FULL = OSError(errno.ENOSPC, "No space left on device", "some/file")
FULL_IN_RUST = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("owner", "name", "count", "error", "last"),
    [
        (checkpoint, "seal", 3, FULL, "step-4"),
        (callbacks, "append_line", 4, FULL, "step-2"),
        (PreTrainedModel, "save_pretrained", 1, FULL_IN_RUST, "step-8"),
    ],
    ids=["checkpoint", "metrics", "model"],
)
def test_a_full_disk_anywhere_is_told(tmp_path, things, monkeypatch, owner, name, count, error, last):
    run = load_run(runs.run_file(tmp_path, things, arms={"plain": []}))
    inner, calls = getattr(owner, name), []

    def full(*args, **kwargs):
        calls.append(args)
        if len(calls) == count:
            raise error
        return inner(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(DiskFull, match=r"the disk is full: .* Free some space and"):
            learn(run)
    assert checkpoint.newest(run.output / "checkpoints")[0].name == last
    assert learn(run, resume=True)["arms"]["plain"]["steps"] == 9
