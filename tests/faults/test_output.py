"""Outputs that are lost, and terminals that close: the run stops in good order and says how to go on."""

import os
import signal
from pathlib import Path

import pytest

import runs
from foci.system import checkpoint


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


def head(pipe: Path, count: int) -> None:
    """Reads `count` bytes of a pipe and closes it, as `head` does."""
    with pipe.open("rb", buffering=0) as reader:
        reader.read(count)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def last(out: Path) -> int:
    found = checkpoint.newest(out / "checkpoints")[0]
    return checkpoint.step_of(found) if found else 0


def updates(out: Path) -> int:
    return (out / "metrics.jsonl").read_text().count("\n")


def test_a_closed_pipe_stops_a_run_like_a_signal(tmp_path, things, pipe):
    """`foci learn ... | head -1`"""
    file, out = runs.run_file(tmp_path, things, arms={"plain": []}), tmp_path / "out"
    child = runs.start(["learn", file], tmp_path, stdout=pipe)
    head(pipe, 1)
    assert child.wait() == 141
    words = child.err.read_text()
    assert "nobody reads the output any more" in words
    assert f"go on with: foci learn {out} --resume" in words
    assert "Traceback" not in words
    if (out / "metrics.jsonl").is_file():
        assert last(out) == updates(out)  # nothing that was done is lost
    runs.finished(["learn", out, "--resume"], tmp_path)
    assert updates(out) == 9


def test_a_pipe_that_closes_in_training_saves_first(tmp_path, things, pipe):
    file, out = runs.run_file(tmp_path, things, arms={"plain": []}), tmp_path / "out"
    child = runs.start(["learn", file], tmp_path, slow=0.05, stdout=pipe)
    with pipe.open("rb", buffering=0) as reader:
        seen = b""
        while b"update 1/9" not in seen:
            seen += reader.read(4096)
    assert child.wait() == 141
    assert "a checkpoint is written after this update" in child.err.read_text()
    assert 0 < last(out) == updates(out) < 9


@pytest.mark.parametrize("command", [["methods"], ["--version"]])
def test_a_short_command_ends_without_a_word_when_its_reader_does(tmp_path, pipe, command):
    child = runs.start(command, tmp_path, stdout=pipe)
    descriptor = os.open(pipe, os.O_RDONLY)
    os.close(descriptor)
    assert child.wait() in (0, 141)  # 0 where all was written before the reader went
    assert child.err.read_text() == ""


def test_a_full_output_is_not_blamed_on_the_runs_folder(tmp_path, things):
    file = runs.run_file(tmp_path, things, arms={"plain": []})
    child = runs.start(["learn", file], tmp_path, stdout=Path("/dev/full"))
    assert child.wait() == 1
    words = child.err.read_text()
    runs.assert_one_paragraph(words)
    assert "the output (stdout) cannot be written (No space left on device)" in words
    assert "could not be written" not in words
    assert "go on with: foci learn" in words


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="the tests run under nohup")
def test_a_closed_terminal_saves_and_a_second_hangup_does_not_end_it(tmp_path, things):
    """A shell and the system both send SIGHUP when a terminal closes."""
    file, out = runs.run_file(tmp_path, things, arms={"plain": []}), tmp_path / "out"
    child = runs.start(["learn", file], tmp_path, slow=0.3)
    child.until(lambda: (out / "metrics.jsonl").is_file() and updates(out))
    child.signal(signal.SIGHUP)
    child.until(lambda: "a checkpoint is written after this update" in child.err.read_text())
    child.signal(signal.SIGHUP)
    assert child.wait() == 129
    assert "stopped by SIGHUP; go on with" in child.err.read_text()
    assert 0 < last(out) == updates(out) < 9


def test_under_nohup_a_hangup_is_nothing(tmp_path, things):
    file, out = runs.run_file(tmp_path, things, arms={"plain": []}), tmp_path / "out"
    child = runs.start_call(runs.under_nohup, ["learn", str(file)], folder=tmp_path, slow=0.05)
    child.until(lambda: (out / "metrics.jsonl").is_file() and updates(out))
    child.signal(signal.SIGHUP)
    assert child.wait() == 0, child.err.read_text()
    assert updates(out) == 9


def test_sigterm_leaves_enough_of_ten_seconds(tmp_path, things):
    """A scheduler kills ten seconds after SIGTERM; by then the checkpoint is written."""
    file, out = runs.run_file(tmp_path, things, arms={"plain": []}), tmp_path / "out"
    child = runs.start(["learn", file], tmp_path, slow=1.0)
    child.until(lambda: (out / "metrics.jsonl").is_file() and updates(out))
    child.signal(signal.SIGTERM)
    assert child.wait(10) == 143
    assert 0 < last(out) == updates(out) < 9
