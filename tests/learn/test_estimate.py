"""The estimate of a run counts all that a run does: baseline, training, probings, offline stages, saving."""

from dataclasses import replace

import pytest
import torch

import runs
from foci.config.run import load_run
from foci.learn.estimate import Estimate, estimate
from foci.learn.inputs import material

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
