"""`foci bench` in several processes: the table of one, and an end in good order."""

import json
import signal

import pytest

import runs
import several
import suites
from processes_compared import assert_same
from suites import lasting

ONE_SEED = {"seeds": [0], "adapter": {"dropout": 0.0}, "slide": {"points": [0.5]}}


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    return suites.material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def one(stuff, tmp_path_factory):
    """The folder of a suite that one process ran."""
    folder = tmp_path_factory.mktemp("one")
    runs.finished(["bench", run_file(folder, stuff, **ONE_SEED)], folder)
    return folder / "out"


def run_file(folder, stuff, **changes):
    """The suite's file; its output is the folder `out` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    return suites.suite_file(folder, *stuff, **{"output": str(folder / "out"), **changes})


def table(folder):
    return lasting(json.loads((folder / "table.json").read_text()))


def test_two_processes_write_the_table_of_one(stuff, one, tmp_path):
    file = run_file(tmp_path, stuff, **ONE_SEED)
    children = several.finished(["bench", file], tmp_path, 2)
    assert_same(table(tmp_path / "out"), table(one))
    told = [child.out.read_text() for child in children]
    assert "cell 2 of 2" in told[0]
    assert told[1] == ""
    assert not [words for child in children if (words := child.err.read_text())]
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in (tmp_path / "out").iterdir())
    several.finished(["bench", file, "train.learning_rate=0.01", "--overwrite"], tmp_path, 2)
    assert "learning_rate: 0.01" in (tmp_path / "out" / "cells" / "plain" / "seed-0" / "run.yaml").read_text()


def test_a_suite_matched_by_tokens_is_stopped_in_two_processes_and_ended_in_one(stuff, tmp_path):
    arms = {"plain": [], "replay": [{"replay": {"ratio": 0.5, "samples": 4}}]}
    changes = {"seeds": [0], "adapter": {"dropout": 0.0}, "arms": arms, "match": "tokens"}
    runs.finished(["bench", run_file(tmp_path / "one", stuff, **changes)], tmp_path / "one")
    file = run_file(tmp_path / "two", stuff, **changes)
    moment = ("foci.learn.callbacks.Metrics.on_step_end", 6, signal.SIGTERM)
    children = several.start(["bench", file], tmp_path / "two", 2, {1: moment})
    assert [child.wait(120) for child in children] == [143, 143]
    words = "".join(child.err.read_text() for child in children)
    assert words.count("stopped by SIGTERM") == 1, words
    runs.finished(["bench", file], tmp_path / "two")
    assert_same(table(tmp_path / "two" / "out"), table(tmp_path / "one" / "out"), rel=2e-3)  # of differences


def test_killed_in_two_processes_the_same_command_goes_on(stuff, one, tmp_path):
    """bench has no --resume, so the other process does not speak of it."""
    file = run_file(tmp_path, stuff, **ONE_SEED)
    moment = ("foci.learn.callbacks.Metrics.on_step_end", 6, signal.SIGKILL)
    children = several.start(["bench", file], tmp_path, 2, {1: moment})
    assert [child.wait(120) for child in children] == [1, -signal.SIGKILL]
    words = " ".join(children[0].err.read_text().split())
    assert "another process of this run ended without a word" in words
    assert words.endswith("go on with the same command")
    several.finished(["bench", file], tmp_path, 2)
    assert_same(table(tmp_path / "out"), table(one), rel=2e-3)


def test_a_cell_that_fails_ends_all_processes(stuff, tmp_path):
    file = run_file(tmp_path, stuff, **{**ONE_SEED, "train": {"learning_rate": 1e30}})
    children = several.start(["bench", file], tmp_path, 2)
    codes = [child.wait(120) for child in children]
    words = "".join(child.err.read_text() for child in children)
    assert 0 not in codes, words
    runs.assert_one_paragraph(words)
    assert "cell plain, seed 0 failed: " in " ".join(words.split())
    assert not (tmp_path / "out" / "table.json").exists()


def test_workers_are_refused_under_a_launcher(stuff, tmp_path, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    words = runs.refused(["bench", run_file(tmp_path, stuff, **ONE_SEED), "--workers", "2"], capsys)
    assert "--workers 2 runs cells side by side, but a launcher started 2 processes" in " ".join(words.split())
