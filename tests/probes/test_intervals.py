"""Means, intervals, paired differences, the choice of a point, matching: values worked by hand."""

import math

import pytest
from scipy import stats

import small
import training
from foci.bench.budget import tokens_of, updates_of
from foci.bench.plots import pareto
from foci.bench.points import chosen, measured, top
from foci.config.train import TrainConfig
from foci.focus import Plan
from foci.learn.arguments import lengthened, planned_updates
from foci.probes import Answer
from foci.probes.intervals import difference, interval, ratio

ARM, PLAIN = [0.61, 0.55, 0.64, 0.58], [0.41, 0.39, 0.35, 0.47]


def test_the_interval_of_three_values_by_hand():
    # mean 0.5, s = 0.1, t(2) at 97.5 % = 4.302653: half = 4.302653 * 0.1 / sqrt(3) = 0.248414
    found = interval([0.4, 0.5, 0.6])
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high) == (pytest.approx(0.251586, abs=1e-6), pytest.approx(0.748414, abs=1e-6))
    assert found.n == 3


def test_the_interval_is_scipys():
    found = interval(ARM)
    low, high = stats.ttest_1samp(ARM, 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_the_paired_interval_by_hand_and_by_scipy():
    # differences .2 .16 .29 .11: mean .19, squares .0001 .0009 .01 .0064 -> s = sqrt(.0174 / 3); t(3) = 3.182446
    found = difference(ARM, PLAIN)
    half = 3.182446 * math.sqrt(0.0174 / 3) / 2
    assert found.mean == pytest.approx(0.19)
    assert (found.low, found.high) == (pytest.approx(0.19 - half, abs=1e-6), pytest.approx(0.19 + half, abs=1e-6))
    low, high = stats.ttest_rel(ARM, PLAIN).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_pairing_is_what_makes_it_narrow():
    """Arms that differ by the same amount on unlike seeds: the difference is certain, the means are not."""
    arm, plain = [0.2, 0.5, 0.8], [0.1, 0.4, 0.7]
    assert difference(arm, plain).high - difference(arm, plain).low < 1e-9
    assert interval(arm).high - interval(arm).low > 1


def test_the_interval_of_ratios_is_that_of_their_logarithms_by_hand():
    # logs 0, log 4: mean log 2, s = log 4 / sqrt(2), t(1) = 12.706205: half = 12.706205 * log 2
    found = ratio([1.0, None, 4.0])
    assert found.mean == pytest.approx(2.0)
    assert found.high == pytest.approx(2 * 2**12.706205, rel=1e-5)
    assert found.low == pytest.approx(2 / 2**12.706205, rel=1e-5)
    assert (ratio([2.0]).mean, ratio([2.0]).low, ratio([None])) == (2.0, None, None)


def test_one_value_gives_no_interval_and_none_gives_nothing():
    assert (interval([0.3]).mean, interval([0.3]).low, interval([0.3]).high) == (0.3, None, None)
    assert interval([]) is None
    assert interval([None, None]) is None


def test_a_seed_that_one_side_has_not_is_left_out_of_the_pairs():
    found = difference([0.5, None, 0.9], [0.4, 0.1, 0.6])
    assert found.n == 2
    assert found.mean == pytest.approx(0.2)
    with pytest.raises(ValueError, match="got 1 and 2"):
        difference([0.5], [0.4, 0.1])


def test_the_front_keeps_what_nothing_beats():
    assert pareto([(0.5, 0.5), (0.2, 0.9), (0.5, 0.6), (0.9, 0.1), (0.3, 0.4)]) == [1, 2, 3]
    assert pareto([(0.5, 0.5), (0.5, 0.5)]) == [0]


def point(step, learned, held_learned, held_retained, retained=1.0):
    held = [share for share in (held_learned, held_retained) if share is not None]
    return {
        "held_out_score": sum(held) if held else None,
        "step": step, "learned": learned, "retained": retained, "total": learned + retained,
        "held_out_learned": held_learned, "held_out_retained": held_retained,
    }  # fmt: skip


def test_the_point_is_chosen_on_held_out_probes_not_on_the_reported_ones():
    path = [point(0, 0.0, 0.9, 1.0), point(5, 0.3, 0.4, 0.9), point(10, 0.9, 0.5, 0.6), point(15, 0.8, 0.6, 0.7)]
    assert chosen(path)["step"] == 5  # 1.3, 1.1 and 1.3: the first of equals; the untouched model is no choice
    assert top(path)["step"] == 10


def test_without_held_out_probes_the_end_is_reported():
    assert chosen([point(0, 0.0, None, None), point(5, 0.9, None, None), point(9, 0.1, None, None)])["step"] == 9


def test_one_role_decides_where_the_other_has_no_held_out_probe():
    assert chosen([point(0, 0.0, 0.1, None), point(5, 0.0, 0.7, None), point(9, 0.0, 0.2, None)])["step"] == 5


def said(name, role, accuracy, nll, counted=True, answer="x"):
    return Answer(name, role, "cloze", "", "p", answer, "", accuracy == 1, accuracy, None, None, nll, counted,
                  name.startswith("held_out/"))  # fmt: skip


def test_held_out_and_uncounted_probes_have_no_part_in_the_scores():
    found = measured(
        [
            said("a", "learn", 0.5, 2.0, answer="Rome"), said("b", "learn", 1.0, 1.0, answer="Rome"),
            said("c", "learn", 0.0, 6.0, answer="Bern"),
            said("r", "retain", 0.8, 0.5), said("s", "retain", 0.0, 9.0, counted=False),
            said("held_out/h", "learn", 0.25, 4.0), said("held_out/i", "retain", 0.75, 4.0),
            said("held_out/j", "retain", 0.0, 4.0, counted=False),
        ]
    )  # fmt: skip
    assert (found["learned"], found["retained"], found["total"]) == (0.5, 0.8, 1.3)
    assert (found["learned_nll"], found["retained_nll"]) == (3.0, 0.5)
    assert found["balanced"] == 0.375  # Rome .75, Bern 0
    assert (found["held_out_learned"], found["held_out_retained"]) == (0.25, 0.75)


def test_updates_of_plain_fine_tuning():
    assert planned_updates(10, TrainConfig(epochs=3, batch_size=4)) == 9
    assert planned_updates(10, TrainConfig(epochs=3, batch_size=4, accumulation=2)) == 6
    assert planned_updates(10, TrainConfig(epochs=1, batch_size=4, copies=2)) == 5
    assert planned_updates(10, TrainConfig(epochs=1, batch_size=4, copies=2), 10) == 8, "rows mixed in have no copies"
    assert planned_updates(10, TrainConfig(steps=7)) == 7


def test_a_small_corpus_is_read_until_the_least_updates_and_a_large_one_four_times():
    assert planned_updates(17, TrainConfig()) == 60  # 2 updates an epoch would make 8
    assert planned_updates(16 * 100, TrainConfig()) == 400
    small_run, large_run = (lengthened(TrainConfig(), rows) for rows in (17, 16 * 100))
    assert (small_run.steps, small_run.epochs) == (60, None)
    assert (large_run.steps, large_run.epochs) == (None, 4)
    assert lengthened(TrainConfig(epochs=1), 17).epochs == 1
    assert lengthened(TrainConfig(epochs=1, least_steps=9, accumulation=2), 17).steps == 9


def test_as_many_tokens_take_fewer_updates_where_long_old_rows_are_read():
    new = small.rows(8, seed=1, shortest=5, longest=5)  # 8 rows of 5 tokens: 2 updates and 40 tokens an epoch
    old = small.rows(4, seed=2, shortest=15, longest=15)
    mixed = Plan([small.Old(old, count=(4, 4))])  # 12 rows: 3 updates and 100 tokens an epoch
    train = TrainConfig(epochs=5, batch_size=4)
    budget = tokens_of(Plan(), new, train, 0, 10)
    assert budget == 200
    assert updates_of(Plan(), new, train, 0, budget) == 10
    assert updates_of(mixed, new, train, 0, budget) == 6
    assert tokens_of(mixed, new, train, 0, 6) == 200


def test_predicted_tokens_are_those_that_the_trainer_reads(tmp_path):
    new, plan = small.rows(12, seed=3), Plan([small.Old(small.rows(7, seed=4), count=(7, 3, 2))])
    train, read = TrainConfig(batch_size=4), []

    class Counting(training.FocusTrainer):
        def get_batch_samples(self, *args):
            found = super().get_batch_samples(*args)
            read.append(self.update.tokens)
            return found

    arguments = training.arguments(tmp_path, max_steps=9)
    Counting(training.model(), arguments, plan=plan, train_dataset=new).train()
    assert len(read) == 9
    whole = tokens_of(plan, new, train, 5, 9)
    assert sum(read) == pytest.approx(whole, rel=0.05)
    assert updates_of(plan, new, train, 5, whole) == 9


def test_dropped_tokens_are_not_counted():
    rows = small.rows(12, seed=3)
    train = TrainConfig(epochs=2, batch_size=4)
    plain = tokens_of(Plan(), rows, train, 0, 6)
    assert tokens_of(Plan([small.Dropped(0.5)]), rows, train, 0, 6) < 0.8 * plain
    assert updates_of(Plan([small.Dropped(0.5)]), rows, train, 0, plain) > 6
