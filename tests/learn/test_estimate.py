"""The estimate of a run counts all that a run does: baseline, training, probings, offline stages, saving."""

from dataclasses import replace

import pytest
import torch

import runs
from foci.config.run import load_run
from foci.learn.estimate import Estimate, _measures, estimate
from foci.learn.inputs import material
from foci.learn.questions import is_to_learn
from foci.learn.run import learn

PARTS = Estimate(
    parameters=1, trained=1, left_out="", rows=1, tokens_per_epoch=1, updates=1, tokens=1, memory_mib=None,
    train_seconds=100.0, probe_seconds=10.0, probings=3, save_seconds=5.0, offline_seconds=7.0, arms=2,
    arm_updates={"plain": 1, "more": 1},
)  # fmt: skip


def test_the_whole_is_the_sum_of_its_parts():
    """The baseline once; of each of two arms 100 s of training, three probings, 5 s of saving; 7 s offline."""
    assert PARTS.seconds == 10 + 2 * (100 + 3 * 10 + 5) + 7
    assert replace(PARTS, arms=1, offline_seconds=0.0, arm_updates={"plain": 1}).seconds == 10 + 100 + 30 + 5
    assert replace(PARTS, arm_updates={"plain": 1, "more": 3}).seconds == PARTS.seconds + 2 * 100


def test_rows_that_methods_mix_in_are_updates(tmp_path):
    """10 texts in batches of 4 are 3 updates an epoch; with 10 study rows and 5 old ones 25 rows, 7 updates."""
    things = runs.material(tmp_path)
    arms = {"plain": [], "more": ["study", {"replay": {"ratio": 0.5}}]}
    run = load_run(runs.run_file(tmp_path, things, arms=arms))
    assert run.train.batch_size == 4
    assert estimate(run, material(run)).arm_updates == {"plain": 3 * 3, "more": 3 * 7}


def test_an_arm_without_a_length_of_its_own_trains_the_least_updates(tmp_path):
    """10 texts in batches of 4 are 3 updates an epoch; with 10 held ones 5. One epoch is fewer than 4 updates."""
    things = runs.material(tmp_path)
    arms = {"plain": [], "more": [{"replay": {"path": "encyclopedia", "anchor": "kl"}}]}
    train = {"epochs": 1, "least_steps": 4, "checkpoint_every": None}
    run = load_run(runs.run_file(tmp_path, things, arms=arms, train=train, probes={"every": None}))
    assert estimate(run, material(run)).arm_updates == {"plain": 4, "more": 5}
    assert {name: arm["steps"] for name, arm in learn(run)["arms"].items()} == {"plain": 4, "more": 5}


def test_the_files_are_told_before_the_model_is_asked(tmp_path):
    things, order = runs.material(tmp_path), []
    run = load_run(runs.run_file(tmp_path, things))
    made = material(run, tell=order.append, begin=lambda: order.append("begin"))
    assert order[0] == "begin"
    assert order[1].startswith("file ")
    assert str(things.corpus) in order[2]
    assert not any(str(things.corpus) in line for line in made.told()[:1])


def test_the_measures_are_timed_by_parts_of_known_size(tmp_path):
    things = runs.material(tmp_path)
    run = load_run(runs.run_file(tmp_path, things))
    questions = replace(material(run).questions, text="a" * 5000)
    parts = list(_measures(questions))
    assert parts[0][1] == 2.5
    assert [len(part.text or "") for part, _ in parts] == [2000, 0, 0]
    tokens = sum(map(len, questions.rows))
    assert parts[1][1] * len(parts[1][0].rows[0]) == tokens
    assert all(is_to_learn(probe) for probe in parts[2][0].probes)
    assert parts[2][1] == 1


def test_every_part_of_a_run_is_measured(tmp_path):
    things = runs.material(tmp_path)
    run = load_run(runs.run_file(tmp_path, things, arms={"plain": [], "known": ["known"]}))
    made = material(run)
    before = [parameter.clone() for parameter in made.loaded.model.parameters()]
    cost = estimate(run, made)
    assert (cost.updates, cost.probings, cost.arms) == (9, 3, 2)  # after updates 3, 6 and 9
    assert min(cost.train_seconds, cost.probe_seconds, cost.save_seconds, cost.offline_seconds) > 0
    weights = [p for n, p in made.loaded.model.named_parameters() if "lora" not in n]
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    plain = load_run(tmp_path / "small.yaml", ["arms={plain: []}", "probes.every=null"])
    alone = estimate(plain, material(plain))
    assert (alone.offline_seconds, alone.probings, alone.arms) == (0, 1, 1)
    assert alone.save_seconds == pytest.approx(cost.save_seconds)
