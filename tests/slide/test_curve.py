"""The points that compare arms, worked by hand: chosen on held-out probes, read off the others, on straight lines."""

import pytest

from foci.probes import Answer
from foci.slide.curve import at_kept, at_learned, interpolated, kept_at_learned, learned_at_kept, measured
from foci.slide.run import summary


def points(*lines):
    """(share, learned, retained, held-out learned, held-out retained) in per cent."""
    names = ("at", "learned", "retained", "held_out_learned", "held_out_retained")
    found = [dict(zip(names, (value / 100 for value in line), strict=True)) for line in lines]
    return [{**p, "learned_whole": p["learned"], "retained_whole": p["retained"]} for p in found]


PLAIN = points((0, 0, 100, 0, 100), (50, 10, 90, 10, 80), (100, 20, 60, 20, 40))
OTHER = points((0, 0, 100, 0, 100), (50, 30, 98, 30, 98), (100, 50, 80, 40, 90))


def test_numbers_between_two_points_lie_on_a_straight_line():
    assert interpolated(OTHER, 0.75, "learned") == pytest.approx(0.4)
    assert interpolated(OTHER, 0.5, "learned") == 0.3
    assert interpolated([{**p, "learned": None} for p in OTHER], 0.75, "learned") is None


def test_learned_at_what_is_kept():
    assert at_kept(PLAIN, 0.95) == pytest.approx(0.125)  # held-out retained falls from 100 to 80 over half the change
    assert learned_at_kept(PLAIN, 0.95) == pytest.approx(0.025)
    assert at_kept(OTHER, 0.95) == pytest.approx(0.6875)  # from 98 to 90: 95 after 3/8 of the second half
    assert learned_at_kept(OTHER, 0.95) == pytest.approx(0.375)
    assert at_kept(OTHER, 0.5) == 1.0
    assert at_kept([PLAIN[1]], 0.95) is None


def test_kept_at_plains_learned():
    assert at_learned(OTHER, 0.2) == pytest.approx(1 / 3)  # plain's whole change learns 20 held out
    assert kept_at_learned(OTHER, PLAIN) == pytest.approx(1 - 0.02 * 2 / 3)
    assert kept_at_learned(PLAIN, PLAIN) == pytest.approx(0.6)
    assert kept_at_learned(PLAIN, OTHER) is None  # plain never learns 40
    assert kept_at_learned(PLAIN, []) is None


def test_a_curve_that_comes_back_counts_where_most_is_learned():
    wavy = points(
        (0, 0, 100, 0, 100), (25, 10, 90, 10, 90), (50, 20, 96, 20, 96), (75, 30, 94, 30, 94), (100, 9, 50, 9, 50)
    )
    assert at_kept(wavy, 0.95) == pytest.approx(0.625)
    assert at_learned(wavy, 0.15) == pytest.approx(0.375)


def test_a_point_is_chosen_on_other_probes_than_it_is_reported_on():
    changed = [{**p, "retained": 0.1, "retained_whole": 0.1} for p in OTHER]
    assert at_kept(changed, 0.95) == at_kept(OTHER, 0.95)
    found = summary({"plain": PLAIN, "other": OTHER}, "scale", 0.95, "plain")["arms"]["other"]
    assert found["learned_at_kept"] == pytest.approx(0.375)
    assert found["kept_at_plain"] == pytest.approx(1 - 0.02 * 2 / 3)


def answer(number, role, accuracy, *, held_out=False, counted=True):
    right = (f"a{number}", "", accuracy == 1, accuracy, None, None, 1.0)
    return Answer(f"{role}{number}", role, "cloze", "", "", *right, counted, held_out)


def test_what_a_run_holds_out_chooses_and_else_half_of_the_facts():
    held = [answer(n, role, 1.0, held_out=True) for n in range(2) for role in ("learn", "retain")]
    open_ = [answer(n, role, 0.0) for n in range(2, 8) for role in ("learn", "retain")]
    lost = [answer(9, "retain", 0.5, counted=False)]
    assert measured([*held, *open_, *lost], 0) == {
        "learned": 0.0, "retained": 0.0, "learned_whole": 0.0, "retained_whole": 0.0,
        "held_out_learned": 1.0, "held_out_retained": 1.0,
    }  # fmt: skip
    mixed = [answer(n, role, float(n)) for n in range(6) for role in ("learn", "retain")]
    found = measured(mixed, 0)
    assert found["learned"] + found["held_out_learned"] == pytest.approx(5.0)  # two halves of three facts each
    assert found == measured(mixed[::-1], 0)
    assert any(measured(mixed, seed) != found for seed in range(1, 4))
