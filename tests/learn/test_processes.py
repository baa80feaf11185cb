"""`foci learn` in several processes: the summary of one, and an end in good order."""

import signal

import pyarrow.parquet as pq
import pytest

import runs
import several
from foci.cli.processes import INSTEAD
from foci.system import launch, processes
from processes_compared import assert_same, assert_same_weights, outcome, run_file


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def one(tmp_path_factory, things):
    folder = tmp_path_factory.mktemp("one")
    runs.finished(["learn", run_file(folder, things)], folder)
    return folder / "out"


def test_stopped_in_two_processes_and_gone_on_with_in_three(tmp_path, things, one):
    """A signal to one of two processes stops both after the same update; three go on to the end of one."""
    file = run_file(tmp_path, things)
    moment = ("foci.learn.callbacks.Metrics.on_step_end", 5, signal.SIGTERM)
    children = several.start(["learn", file], tmp_path, 2, {1: moment})
    assert [child.wait(120) for child in children] == [143, 143]
    words = "".join(child.err.read_text() for child in children)
    assert words.count("stopped by SIGTERM; go on with: foci learn") == 1, words
    saved = sorted(path.name for path in (tmp_path / "out" / "arms" / "plain" / "checkpoints").iterdir())
    assert saved[-1] == "step-5"
    children = several.finished(["learn", file, "--resume"], tmp_path, 3)
    said = [child.out.read_text() for child in children]
    assert "resumes after update 5" in said[0]
    assert said[0].count("plain  update 9/9") == 1
    assert said[1:] == ["", ""]
    assert not [child.err.read_text() for child in children if child.err.read_text()]
    assert_same(outcome(tmp_path / "out"), outcome(one))
    assert_same_weights(tmp_path / "out", one)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".part")]


def test_an_error_of_one_process_is_told_once_and_ends_all(tmp_path, things):
    """The first process reads the corpus; the other one waits for it, and says nothing of the lost connection."""
    file = run_file(tmp_path, things)
    things.corpus.with_name("broken.jsonl").write_text("{\n")
    children = several.start(["learn", file, f"corpus.path={things.corpus.with_name('broken.jsonl')}"], tmp_path, 2)
    codes = [child.wait(60) for child in children]
    words = "".join(child.err.read_text() for child in children)
    assert codes[0] == 2
    assert codes[1] == 1
    runs.assert_one_paragraph(words)
    assert "broken.jsonl" in words


def test_a_killed_process_ends_the_other_with_a_word(tmp_path, things):
    moment = ("foci.learn.callbacks.Metrics.on_step_end", 4, signal.SIGKILL)
    children = several.start(["learn", run_file(tmp_path, things)], tmp_path, 2, {1: moment})
    assert [child.wait(60) for child in children] == [1, -signal.SIGKILL]
    words = children[0].err.read_text()
    runs.assert_one_paragraph(words)
    assert "another process of this run ended without a word" in words
    assert "--resume" in words


@pytest.mark.parametrize("command", ["advise", "pretrain", "check", "data"])
def test_commands_of_one_process_are_refused_by_name(command, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    processes.speaks.cache_clear()
    words = runs.refused([command, "x.yaml"], capsys)
    assert f"foci {command} runs in one process, got 2" in words
    assert INSTEAD.get(command, "start it without the launcher") in " ".join(words.split())
    monkeypatch.setenv("RANK", "1")
    processes.speaks.cache_clear()
    assert not processes.speaks()
    assert launch.number() == 1


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("WORLD_SIZE", "two", "of at least 1"),
        ("WORLD_SIZE", "0", "of at least 1"),
        ("WORLD_SIZE", "1.5", "of at least 1"),
        ("RANK", "first", "from 0 to 1"),
        ("RANK", "2", "from 0 to 1"),
        ("LOCAL_WORLD_SIZE", "-1", "from 1 to 2"),
    ],
)
def test_what_no_launcher_sets_is_told_by_name(name, value, limits, monkeypatch, capsys):
    for key, number in {"WORLD_SIZE": "2", "RANK": "0", name: value}.items():
        monkeypatch.setenv(key, number)
    words = " ".join(runs.refused(["methods"], capsys).split())
    assert f"the environment variable {name} is {value!r}, expected a whole number {limits}" in words
    assert f"unset {name}" in words


def test_an_empty_variable_of_a_launcher_is_none(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    assert (launch.count(), launch.local_count(), launch.number()) == (1, 1, 0)


def test_what_accelerate_is_configured_for_is_refused_by_name(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"asks for DeepSpeed .*start with torchrun"), processes.together():
        pass


def test_probes_are_shared_out_and_put_together(tmp_path, things):
    asked = runs.write_lines(tmp_path / "asked.jsonl", [{**line, "role": "learn"} for line in runs.questions()])
    runs.finished(["probe", things.model, asked, "--out", tmp_path / "one.parquet"], tmp_path)
    children = several.finished(["probe", things.model, asked, "--out", tmp_path / "two.parquet"], tmp_path, 2)
    one, two = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("one", "two"))
    assert [line["probe_id"] for line in two] == [line["probe_id"] for line in one]
    assert_same(two, one)
    assert [child.out.read_text() == "" for child in children] == [False, True]
