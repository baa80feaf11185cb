"""Suites in processes of their own: side by side, and killed at random moments."""

import io
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

import runs
import suites
from foci.bench.run import bench

KILLS = int(os.environ.get("FOCI_TEST_KILLS", "3"))
"""Random moments at which a suite is killed."""


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    return suites.material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def whole(stuff, tmp_path_factory):
    """(the command, its table, its seconds) of a suite that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    file = suites.suite_file(folder, *stuff, train={"checkpoint_every": 1}, probes={"every": 1})
    begin = time.monotonic()
    runs.finished(["bench", file, f"output={folder / 'out'}"], folder)
    return file, suites.lasting_bytes(folder / "out" / "table.json"), time.monotonic() - begin


def test_killed_at_random_moments_it_ends_with_the_same_table(whole, tmp_path):
    file, table, seconds = whole
    rng, folder, moments = random.Random(7), tmp_path / "out", 0
    while moments < KILLS:
        if (folder / "table.json").exists():
            shutil.rmtree(folder)  # it came to its end: begin again
        child = runs.start(["bench", file, f"output={folder}"], tmp_path)
        child.process.join(rng.uniform(0.02, 1.0) * seconds)
        if child.process.is_alive():
            child.signal(signal.SIGKILL)
        if (code := child.wait()) == -signal.SIGKILL:
            moments += 1
        else:  # it came to its end first
            assert code == 0, child.err.read_text()
            assert suites.lasting_bytes(folder / "table.json") == table
    runs.finished(["bench", file, f"output={folder}"], tmp_path)
    assert suites.lasting_bytes(folder / "table.json") == table
    torn = [path for path in folder.rglob("*") if path.name.endswith((".part", ".old"))]
    assert not torn


@pytest.mark.parametrize(
    "call", ["foci.learn.arm.described", "foci.bench.cells._stage", "foci.bench.cells.tidy", "foci.bench.run._write"]
)
def test_killed_between_two_cells(whole, tmp_path, call):
    file, table, _ = whole
    command = ["bench", file, f"output={tmp_path / 'out'}", "seeds=[0]"]
    runs.finished(command, tmp_path, code=-signal.SIGKILL, moment=(call, 1, signal.SIGKILL))
    runs.finished(command, tmp_path)
    assert suites.lasting_bytes(tmp_path / "out" / "table.json") != table  # of one seed
    runs.finished(command[:-1], tmp_path)
    assert suites.lasting_bytes(tmp_path / "out" / "table.json") == table


def test_a_signal_ends_it_in_good_order(whole, tmp_path):
    file, table, _ = whole
    command = ["bench", file, f"output={tmp_path / 'out'}"]
    child = runs.finished(
        command, tmp_path, code=143, moment=("foci.learn.callbacks.Metrics.on_step_end", 6, signal.SIGTERM)
    )
    assert "the same command goes on" in child.err.read_text()
    so_far = (tmp_path / "out" / "table.md").read_text()  # one cell is finished, and one was stopped
    assert "the table of the 1 of 4 finished cells" in child.out.read_text()
    (waiting,) = [line for line in so_far.splitlines() if line.startswith("Not finished")]
    assert waiting.count(", seed ") == 3
    assert "Failed" not in so_far
    runs.finished(command, tmp_path)
    assert suites.lasting_bytes(tmp_path / "out" / "table.json") == table


def test_side_by_side_gives_the_same_table_and_failures_say_why(stuff, tmp_path):
    arms = {"plain": [], "oracle": ["oracle"], "late": ["rec_adam"]}  # its t0 is beyond the end of the run
    one, two = (
        suites.suite(tmp_path, *stuff, output=str(tmp_path / name), arms=some, seeds=[0])
        for name, some in (("one", dict(list(arms.items())[:2])), ("two", arms))
    )
    table, console = bench(one, console=Console(file=io.StringIO())), Console(file=io.StringIO(), width=200)
    with pytest.raises(ValueError, match=r"1 of 3 cells failed .late, seed 0: "):
        bench(two, workers=2, console=console)
    found = suites.json.loads((tmp_path / "two" / "table.json").read_text())
    assert suites.lasting(found["arms"]) == suites.lasting(table["arms"])
    said = console.file.getvalue()
    assert "oracle, seed 0: finished" in said
    assert "(3 of 3)" in said
    assert "Traceback" in (tmp_path / "two" / "cells" / "late" / "seed-0.log").read_text()


def test_processes_end_with_the_one_that_began_them(stuff, tmp_path):
    file = suites.suite_file(tmp_path, *stuff, train={"steps": 400}, probes={"every": None})
    child = runs.start(["bench", file, f"output={tmp_path / 'out'}", "--workers", "2"], tmp_path)
    metrics = tmp_path / "out" / "cells" / "plain" / "seed-0" / "metrics.jsonl"
    child.until(metrics.exists)
    child.signal(signal.SIGKILL)
    child.wait()
    _until_still(metrics)
    assert len(metrics.read_text().splitlines()) < 400


def _until_still(path: Path) -> None:
    """Waits until a file has not grown for a second."""
    size, end = -1, time.monotonic() + 20
    while path.stat().st_size != size:
        assert time.monotonic() < end, f"{path} still grows"
        size = path.stat().st_size
        time.sleep(1)
