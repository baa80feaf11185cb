"""Training that ends by itself where what is held out no longer improves; the best update is kept, bit for bit."""

import signal
from dataclasses import replace

import pytest

import runs
from foci.config.run import load_run
from foci.learn.run import learn
from foci.learn.stopping import Ending, best, is_over, score, scores
from foci.probes import Probe, hold_out
from foci.report.read import read_run
from foci.system.files import read_json, read_lines
from foci.system.run_folder import RunFolder

TRAIN = {"epochs": None, "steps": 30, "patience": 2, "schedule": "constant", "checkpoint_every": 3}
PROBES = {"every": 2, "held_out_share": 0.4}


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def whole(things, tmp_path_factory):
    """The folder of a run that ended by itself, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    file = runs.run_file(folder, things, train=TRAIN, probes=PROBES)
    child = runs.finished(["learn", file], folder)
    return folder / "out", child.out.read_text()


def test_it_stops_and_keeps_the_best_update(whole):
    folder, said = whole
    for name, arm in read_json(folder / "summary.json")["arms"].items():
        own = RunFolder(folder, 2).arm(name)
        scored = scores(own)
        assert arm["kept"] == {"step": best(scored), "early": True}
        assert arm["steps"] == max(scored) == best(scored) + 2 * 2 < 30
        assert f"stopped after update {arm['steps']}: held-out probes (learned + retained) did not improve" in said
        assert f"update {best(scored)} is the best and is kept" in said
        after = next(point for point in arm["path"] if point["step"] == best(scored))
        assert arm["learned"]["after"] == after["learned"]
        assert not own.best.exists()
    assert [arm.last_step for arm in read_run(folder).arms] == [
        arm["kept"]["step"] for arm in read_json(folder / "summary.json")["arms"].values()
    ]


def test_the_kept_model_is_that_of_a_run_that_ends_there(whole, things, tmp_path):
    folder, _ = whole
    arm = read_json(folder / "summary.json")["arms"]["plain"]
    train = {**TRAIN, "steps": arm["kept"]["step"], "patience": None}
    short = learn(load_run(runs.run_file(tmp_path, things, train=train, probes=PROBES, arms={"plain": []})))
    assert short["arms"]["plain"]["weights_sha256"] == arm["weights_sha256"]
    assert short["arms"]["plain"]["retained"] == arm["retained"]


@pytest.mark.parametrize(
    "moment",
    [
        ("foci.learn.stopping.write", 1, signal.SIGKILL),  # a new best is probed and not yet written
        ("foci.learn.arm.restore", 1, signal.SIGKILL),  # trained to its end, the best not yet back
    ],
)
def test_a_killed_run_ends_in_the_same_bits(whole, things, tmp_path, moment):
    file = runs.run_file(tmp_path, things, train=TRAIN, probes=PROBES, arms={"plain": []})
    runs.finished(["learn", file], tmp_path, code=-signal.SIGKILL, moment=moment)
    runs.finished(["learn", file, "--resume"], tmp_path)
    for name, arm in read_json(tmp_path / "out" / "summary.json")["arms"].items():
        known = read_json(whole[0] / "summary.json")["arms"][name]
        for key in ("weights_sha256", "kept", "steps", "learned", "retained", "tokens", "path"):
            assert arm[key] == known[key], (name, key)


def test_without_probes_to_learn_rows_are_held_out(things, tmp_path):
    train = {**TRAIN, "steps": 6, "patience": 1}
    file = runs.run_file(tmp_path, things, train=train, arms={"plain": []}, probes={"learn": None, "every": 2})
    run = load_run(file)
    assert (run.corpus.held_out_share, run.probes.held_out_share) == (0.05, 0.0)
    arm = learn(run)["arms"]["plain"]
    folder = RunFolder(tmp_path / "out", 1)
    texts = read_lines(folder.arm("plain").texts)
    sums = {line["step"]: -(line["held_out_bits_per_byte"] + line["bits_per_byte"]) for line in texts if line["step"]}
    assert scores(folder.arm("plain")) == sums
    assert arm["kept"]["step"] == max(sums, key=sums.get)
    assert folder.held_out.is_file()


def test_what_is_held_out_is_never_reported(whole):
    arm = read_json(whole[0] / "summary.json")["arms"]["plain"]
    asked = read_lines(whole[0] / "probes.jsonl")
    held = {probe["id"] for probe in asked if probe["held_out"]}
    assert {probe["role"] for probe in asked if probe["held_out"]} == {"learn", "retain"}
    assert arm["learn_probes"] == sum(p["role"] == "learn" for p in asked if p["id"] not in held) < 8


def test_facts_are_held_out_by_their_name_alone():
    probes = [
        Probe(f"{fact}-{kind}", "learn", kind, f"prompt {fact}", f"answer {fact}", group="place")
        for fact in range(10) for kind in ("cloze", "qa")
    ]  # fmt: skip
    held = hold_out(probes, 0.3, seed=1)
    ids = {probe.id for probe in held if probe.held_out}
    assert len(ids) == 6
    assert all((f"{n}-cloze" in ids) == (f"{n}-qa" in ids) for n in range(10))
    assert {p.id for p in hold_out(probes[::-1], 0.3, seed=1) if p.held_out} == ids
    assert {p.id for p in hold_out(probes, 0.3, seed=2) if p.held_out} != ids
    assert hold_out(probes, 0.0, seed=1) == probes
    assert not any(p.held_out for p in hold_out([probes[0]], 0.9, seed=1))  # somebody must be reported
    assert hold_out([replace(p, held_out=True) for p in probes], 0.3, seed=1)[0].held_out


def test_defaults_change_with_patience(things, tmp_path):
    file = runs.run_file(tmp_path, things, train={"epochs": None, "schedule": None})
    text = file.read_text().replace("  epochs: null\n", "").replace("  schedule: null\n", "")
    file.write_text(text)
    run = load_run(file, ["train.patience=3"])
    assert (run.train.epochs, run.train.schedule, run.probes.held_out_share) == (50, "constant", 0.2)
    assert (load_run(file).train.schedule, load_run(file).probes.held_out_share) == ("linear", 0.0)
    assert load_run(file, ["train.patience=3", "train.schedule=cosine"]).train.schedule == "cosine"


def test_the_worked_example_of_patience():
    scored = {2: 0.5, 4: 0.9, 6: 0.9, 8: 0.7}
    assert best(scored) == 4
    assert [is_over({s: v for s, v in scored.items() if s <= n}, 2) for n in (2, 4, 6, 8)] == [
        False,
        False,
        False,
        True,
    ]
    assert score([], {"bits_per_byte": 1.0}) is None
    assert score([], {"bits_per_byte": 1.0, "held_out_bits_per_byte": 0.5}) == -1.5


def test_the_reason_for_an_end_agrees_with_the_update_that_is_kept():
    assert Ending(8, 8, False, True).words(4) == (
        "trained to the last update, 8: held-out probes (learned + retained) improved to the end; update 8 is the best "
        "and is kept"
    )
    assert "did not improve after update 2; update 2 is the best" in Ending(8, 2, False, True).words(4)
    assert "stopped after update 8: held-out text (bits per byte) did not improve, once" in Ending(
        8, 6, True, False
    ).words(1)
