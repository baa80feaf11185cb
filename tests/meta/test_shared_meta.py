"""`foci meta` in several processes: the weigher of one."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import metas
import runs
import several
from foci.corpus import read_rows
from foci.meta import run as meta_run
from foci.system import launch, processes
from foci.system.files import read_json, read_lines
from processes_compared import assert_same


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return metas.material(tmp_path_factory.mktemp("meta"), uneven=True)


@pytest.fixture(scope="module")
def one(files, tmp_path_factory):
    """The folder of a meta-training in one process."""
    folder = tmp_path_factory.mktemp("one")
    runs.finished(["meta", metas.run_file(files, folder / "one")], folder)
    return folder / "one"


def outcome(folder):
    """All that was found, but for the seconds."""
    summary = {k: v for k, v in read_json(folder / "summary.json").items() if k not in ("seconds", "seal")}
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(folder / "metrics.jsonl")]
    influence = {
        path.name: [(row.row_id, list(row.columns["alignment"])) for row in read_rows(path)]
        for path in sorted((folder / "influence").glob("*.parquet"))
    }
    return {"summary": summary, "metrics": lines, "influence": json.loads(json.dumps(influence))}


def weights(folder):
    return {name: value for path in sorted(folder.glob("weigher/**/*.safetensors")) for name, value in
            load_file(path).items()}  # fmt: skip


def assert_same_weigher(folder, one):
    assert_same(outcome(folder), outcome(one))
    ours, theirs = weights(folder), weights(one)
    assert theirs
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-5, rtol=1e-3)


def test_two_processes_train_the_weigher_of_one(files, one, tmp_path):
    """32 pairs are two parts of influence; of the 8 pairs of an update each process reads 4, of 6 held out 3."""
    children = several.finished(["meta", metas.run_file(files, tmp_path / "two")], tmp_path, 2)
    assert len(list((one / "influence").glob("*.parquet"))) == 2
    assert_same_weigher(tmp_path / "two", one)
    assert [child.out.read_text() == "" for child in children] == [False, True]
    assert not [words for child in children if (words := child.err.read_text())]


def test_killed_in_two_processes_and_gone_on_with_in_three(files, one, tmp_path):
    file = metas.run_file(files, tmp_path / "three")
    moment = ("foci.meta.run.Training._update", 5, signal.SIGKILL)
    children = several.start(["meta", file], tmp_path, 2, {1: moment})
    assert [child.wait(120) for child in children] == [1, -signal.SIGKILL]
    words = " ".join(children[0].err.read_text().split())
    assert "another process of this run ended without a word" in words
    assert words.endswith("go on with the same command and --resume")
    several.finished(["meta", file, "--resume"], tmp_path, 3)
    assert_same_weigher(tmp_path / "three", one)


def add_up(out):
    """Sums gradients of 1, 2 and none in three processes; called in each."""
    with processes.together():
        here, everywhere = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1, 2))
        everywhere.grad = torch.full((1, 2), float(processes.number()))
        if processes.number() < 2:
            here.grad = torch.tensor([1.0, 10.0]) * (1 + processes.number())
        processes.sum_gradients([here, everywhere])
        assert (here.grad.tolist(), everywhere.grad.tolist()) == ([3.0, 30.0], [[3.0, 3.0]])


def test_gradients_are_summed_and_none_counts_as_zero(tmp_path):
    several.called(add_up, tmp_path, folder=tmp_path, count=3)


def test_other_pairs_in_another_process_are_told(files, tmp_path):
    """As where machines do not share their files."""
    children = several.start_call(
        with_other_pairs, str(metas.run_file(files, tmp_path / "out")), folder=tmp_path, count=2
    )
    codes = [child.wait(120) for child in children]
    words = " ".join("".join(child.err.read_text() for child in children).split())
    assert 0 not in codes
    assert "process 2 of 2 has read 31 pairs" in words


def with_other_pairs(file):
    """Runs foci meta; the second process leaves a pair out."""
    whole = meta_run.material
    less = lambda run: (made := whole(run)) and replace(made, train=made.train[1:])  # noqa: E731
    meta_run.material = less if launch.number() else whole
    runs.command(["meta", file])


def test_a_process_without_a_pair_adds_nothing(files, tmp_path):
    """Two pairs an update, three processes."""
    train = {"epochs": 1, "batch_size": 2}
    for count, folder in ((1, tmp_path / "one"), (3, tmp_path / "three")):
        several.finished(["meta", metas.run_file(files, folder, train=train)], tmp_path, count)
    assert_same_weigher(tmp_path / "three", tmp_path / "one")


def test_the_loop_is_refused_by_name(files, tmp_path, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    words = runs.refused(["meta", metas.run_file(files, tmp_path / "loop", how="loop")], capsys)
    assert "which one process takes, got 2" in " ".join(words.split())
    assert not (tmp_path / "loop").exists()
