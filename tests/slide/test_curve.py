"""The points that compare arms, worked by hand: chosen on held-out probes, read off the others, on straight lines."""

import pytest

from foci.probes import Answer
from foci.slide.curve import at_best, at_first, at_kept, compared, crossings, interpolated, measured
from foci.slide.run import summary


def points(*lines):
    """(share, learned, retained, held-out learned, held-out retained) in per cent."""
    names = ("at", "learned", "retained", "held_out_learned", "held_out_retained")
    found = [dict(zip(names, (value / 100 for value in line), strict=True)) for line in lines]
    return [{**p, "learned_whole": p["learned"], "retained_whole": p["retained"]} for p in found]


def spans(*lines):
    """(share in per cent, NLL, held-out NLL, bits per byte)."""
    names = ("at", "learned_nll", "held_out_learned_nll", "bits_per_byte")
    return [dict(zip(names, (line[0] / 100, *line[1:]), strict=True)) for line in lines]


PLAIN = points((0, 0, 100, 0, 100), (50, 10, 90, 10, 80), (100, 20, 60, 20, 40))
OTHER = points((0, 0, 100, 0, 100), (50, 30, 98, 30, 98), (100, 50, 80, 40, 90))
WAVY = points(
    (0, 0, 100, 0, 100), (25, 10, 90, 10, 90), (50, 20, 96, 20, 96), (75, 30, 94, 30, 94), (100, 9, 50, 9, 50)
)


def at(arm, base=PLAIN, keep=0.95, prose=1.01):
    return compared(arm, base, keep, prose)


def test_numbers_between_two_points_lie_on_a_straight_line():
    assert interpolated(OTHER, 0.75, "learned") == pytest.approx(0.4)
    assert interpolated(OTHER, 0.5, "learned") == 0.3
    assert interpolated([{**p, "learned": None} for p in OTHER], 0.75, "learned") is None


def test_nothing_is_extrapolated():
    part = [OTHER[1], {**OTHER[2], "at": 0.8}]
    assert interpolated(part, 0.5, "learned") == 0.3
    assert [interpolated(part, share, "learned") for share in (0.49, 0.81, None)] == [None, None, None]
    assert interpolated([], 0.5, "learned") is None
    assert crossings(OTHER, "learned", 0.51) == []


def test_learned_at_what_is_kept():
    assert at_kept(PLAIN, 0.95) == pytest.approx(0.125)  # held-out retained falls from 100 to 80 over half the change
    assert at(PLAIN)["learned_at_kept"] == pytest.approx(0.025)
    assert at_kept(OTHER, 0.95) == pytest.approx(0.6875)  # from 98 to 90: 95 after 3/8 of the second half
    assert at(OTHER)["learned_at_kept"] == pytest.approx(0.375)
    assert at_kept(OTHER, 0.5) == 1.0
    assert at_kept([PLAIN[1]], 0.95) is None


def test_kept_is_a_share_of_what_the_untouched_model_gets_right():
    """A generated answer can be right in other words than the probe's: .8 of the tokens are the start, .76 is 95 %."""
    told = points((0, 0, 100, 0, 80), (50, 10, 90, 10, 78), (100, 20, 60, 20, 74))
    assert at_kept(told, 0.95) == pytest.approx(0.75)


def test_kept_at_plains_learned():
    assert at(OTHER)["at_plain"] == pytest.approx(1 / 3)  # plain's whole change learns 20 held out
    assert at(OTHER)["kept_at_plain"] == pytest.approx(1 - 0.02 * 2 / 3)
    assert at(PLAIN)["kept_at_plain"] == pytest.approx(0.6)
    assert at(OTHER, [])["kept_at_plain"] is None


def test_a_target_that_no_share_reaches_is_named_and_not_guessed():
    never = at(PLAIN, OTHER)  # plain never learns 40
    assert (never["kept_at_plain"], never["at_plain"], never["not_reached"]) == (
        None,
        None,
        ["kept_at_plain", "kept_tokens_at_plain"],
    )
    assert at(OTHER, OTHER)["not_reached"] == []
    assert at(OTHER, [])["not_reached"] == []  # no target
    assert at([], OTHER)["not_reached"] == []  # not asked


def test_where_plain_learned_nothing_there_is_no_target():
    """Every arm has learned nothing before its first update: that would say that all of them kept everything."""
    nothing = points((0, 0, 100, 20, 100), (100, 0, 40, 20, 40))
    assert (at(OTHER, nothing)["kept_at_plain"], at(OTHER, nothing)["not_reached"]) == (None, [])


def test_a_curve_that_comes_back_counts_where_most_is_learned_and_where_a_target_is_first_reached():
    assert crossings(WAVY, "held_out_retained", 0.95) == pytest.approx([0.125, 0.25 + 5 / 24, 0.625])
    assert at_kept(WAVY, 0.95) == pytest.approx(0.625)
    assert at_first(WAVY, "held_out_learned", 0.15) == pytest.approx(0.375)
    assert at_first(WAVY, "held_out_learned", 0.3) == 0.75
    assert at_first(WAVY, "held_out_learned", 0.31) is None
    flat = points((0, 0, 100, 0, 100), (50, 10, 95, 10, 95), (100, 10, 95, 10, 95))
    assert at_kept(flat, 0.95) == 0.5  # the smallest share of equals


def test_spans_are_compared_by_nll_at_equal_bits_per_byte_by_hand():
    plain = spans((0, 5.0, 5.0, 1.0), (50, 4.0, 4.0, 1.04), (100, 3.0, 3.5, 1.2))
    other = spans((0, 5.0, 5.0, 1.0), (50, 3.6, 3.8, 1.005), (100, 3.0, 3.0, 1.025))
    found = at(other, plain)
    assert found["at_prose"] == pytest.approx(0.625)  # from 1.005 to 1.025: 1.01 after a quarter of the second half
    assert found["nll_at_prose"] == pytest.approx(3.6 - 0.25 * 0.6)
    assert found["at_nll"] == pytest.approx(0.5 + 0.5 * 0.3 / 0.8)  # held out: from 3.8 to 3, plain's end is 3.5
    assert found["prose_at_nll"] == pytest.approx(1.005 + 0.02 * 0.3 / 0.8)
    assert at(plain, plain)["at_prose"] == pytest.approx(0.125)
    assert at(plain, plain)["prose_at_nll"] == pytest.approx(1.2)
    assert at(plain, other)["not_reached"] == ["prose_at_nll"]
    assert found["learned_at_kept"] is None


def test_prose_that_gets_better_is_no_limit_and_the_smallest_nll_may_lie_inside():
    better = spans((0, 5.0, 5.0, 1.0), (50, 3.0, 3.0, 0.9), (100, 3.5, 3.5, 0.8))
    assert at(better, better)["at_prose"] == 0.5
    assert at_best(better, "held_out_learned_nll", "bits_per_byte", 0.7, low=True) is None


def test_a_point_is_chosen_on_other_probes_than_it_is_reported_on():
    changed = [{**p, "retained": 0.1, "retained_whole": 0.1} for p in OTHER]
    assert at_kept(changed, 0.95) == at_kept(OTHER, 0.95)
    found = summary({"plain": PLAIN, "other": OTHER}, "scale", 0.95, "plain")["arms"]["other"]
    assert found["learned_at_kept"] == pytest.approx(0.375)
    assert found["kept_at_plain"] == pytest.approx(1 - 0.02 * 2 / 3)


def test_answer_tokens_are_read_at_the_same_shares():
    tokens = [{**p, "learned": p["learned"] / 2, "retained": p["retained"] / 4} for p in OTHER]
    found = at(tokens)
    assert (found["learned_at_kept"], found["tokens_at_kept"]) == pytest.approx((0.375, 0.375 / 2))
    assert found["kept_tokens_at_plain"] == pytest.approx(found["kept_at_plain"] / 4)
    assert at(PLAIN, OTHER)["not_reached"] == ["kept_at_plain", "kept_tokens_at_plain"]


def answer(number, role, accuracy, *, held_out=False, counted=True):
    right = (f"a{number}", "", accuracy == 1, accuracy, None, None, 1.0 + number)
    return Answer(f"{role}{number}", role, "cloze", "", "", *right, counted, held_out)


def test_what_a_run_holds_out_chooses_and_else_half_of_the_facts():
    held = [answer(n, role, 1.0, held_out=True) for n in range(2) for role in ("learn", "retain")]
    open_ = [answer(n, role, 0.0) for n in range(2, 8) for role in ("learn", "retain")]
    lost = [answer(9, "retain", 0.5, counted=False)]
    assert measured([*held, *open_, *lost], 0) == {
        "learned": 0.0, "retained": 0.0, "learned_whole": 0.0, "retained_whole": 0.0, "learned_nll": 5.5,
        "held_out_learned": 1.0, "held_out_retained": 1.0, "held_out_learned_nll": 1.5,
    }  # fmt: skip
    mixed = [answer(n, role, float(n)) for n in range(6) for role in ("learn", "retain")]
    found = measured(mixed, 0)
    assert found["learned"] + found["held_out_learned"] == pytest.approx(5.0)  # two halves of three facts each
    assert found == measured(mixed[::-1], 0)
    assert any(measured(mixed, seed) != found for seed in range(1, 4))


def test_what_is_held_out_is_never_reported():
    """Of the facts to retain half choose; the held-out probe to learn chooses alone, and the others are reported."""
    some = [answer(n, role, float(n)) for n in range(4) for role in ("learn", "retain")]
    found = measured([*some, answer(9, "learn", 9.0, held_out=True)], 0)
    assert (found["held_out_learned"], found["learned"]) == (9.0, 1.5)
    assert found["held_out_retained"] + found["retained"] == pytest.approx(3.0)
