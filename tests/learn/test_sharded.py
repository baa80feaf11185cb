"""`foci learn` with `train.fsdp`: processes that share a model make the run of one that holds it whole."""

import signal

import pytest
import torch
from safetensors.torch import load_file

import runs
import several
from foci.system.files import read_json
from foci.system.run_folder import RunFolder
from processes_compared import ARMS, assert_same, assert_same_weights, outcome, run_file

STEP = "foci.learn.callbacks.Metrics.on_step_end"


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


KINDS = {"adapter": ({"dropout": 0.0}, "several"), "all weights": (None, "plain")}


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_in_two_gone_on_with_in_one_and_ended_in_three(kind, tmp_path, things):
    """A checkpoint of parts is one of whole tensors, and the other way round."""
    adapter, arm = KINDS[kind]
    changes = {"adapter": adapter, "arms": {arm: ARMS[arm]}}
    runs.finished(["learn", run_file(tmp_path / "one", things, **changes)], tmp_path)
    file = run_file(tmp_path, things, train={"fsdp": True}, **changes)
    children = several.start(["learn", file], tmp_path, 2, {1: (STEP, 3, signal.SIGTERM)})
    assert [child.wait(120) for child in children] == [143, 143], children[0].err.read_text()
    assert "each of 2 processes holds a part" in children[0].out.read_text()
    child = runs.finished(["learn", file, "--resume"], tmp_path, code=143, moment=(STEP, 3, signal.SIGTERM))
    said = " ".join(child.out.read_text().split())
    assert "resumes after update 3" in said
    assert "train.fsdp has no effect: there is one process" in said
    children = several.finished(["learn", file, "--resume"], tmp_path, 3)
    assert "resumes after update 6" in children[0].out.read_text()
    words = [line for child in children for line in child.err.read_text().splitlines()]
    assert not [line for line in words if not line.startswith("[transformers]")]  # a tied head is in no checkpoint
    assert_same(outcome(tmp_path / "out"), outcome(tmp_path / "one" / "out"))
    assert_same_weights(tmp_path / "out", tmp_path / "one" / "out")


def test_the_best_update_of_a_shared_model_is_kept(tmp_path, things):
    """Early stopping writes whole weights and gives them back to the parts."""
    found = []
    for name, count in (("one", 1), ("two", 2)):
        train = {"epochs": None, "steps": 6, "patience": 1, "schedule": "constant", "fsdp": True}
        probes = {"every": 2, "held_out_share": 0.4}
        changes = {"train": train, "probes": probes, "adapter": {"dropout": 0.0}, "arms": {"plain": []}}
        several.finished(["learn", run_file(tmp_path / name, things, **changes)], tmp_path, count)
        out = tmp_path / name / "out"
        arm = read_json(out / "summary.json")["arms"]["plain"]
        weights = load_file(RunFolder(out, 1).arm("plain").adapter / "adapter_model.safetensors")
        found.append(({key: arm[key] for key in ("kept", "steps", "retained", "path")}, weights))
    (one, ours), (two, theirs) = found
    assert one["kept"]["step"] < one["steps"]
    assert_same(two, one)
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, atol=2e-5, rtol=0)
