"""Why a probe to learn is not answered: never read, as before, or read and not recalled."""

import pytest

from foci.report.measure import reasons, rows_read, why_not


def answer(said, name="p", *, right=False, role="learn", held_out=False):
    return {"probe_id": name, "role": role, "predicted": said, "correct": right, "held_out": held_out}


@pytest.mark.parametrize(
    ("before", "after", "evidence", "read", "expected"),
    [
        ("a", "b", {"rows": ["r"], "made": "front"}, {"r"}, "read, not recalled"),
        ("a", "b", {"rows": ["r"], "made": "question"}, {"r"}, "read, not recalled in other words"),
        ("a", "b", {"rows": ["r"], "made": "moved"}, {"r"}, "read, not recalled in other words"),
        ("a", " A\n", {"rows": ["r"], "made": "moved"}, {"r"}, "says what it said before"),
        ("", "", {"rows": ["r"], "made": "front"}, {"r"}, "read, not recalled"),
        ("a", "a", {"rows": ["r"], "made": "front"}, {"other"}, "never read"),
        ("a", "a", {"rows": ["r", "other"], "made": "front"}, {"other"}, "says what it said before"),
        ("a", "b", {"rows": []}, {"other"}, "never read"),
        ("a", "b", {"rows": []}, None, "never read"),
        ("a", "b", {"rows": ["r"]}, None, "read, not recalled"),
        ("a", "b", {"rows": None}, {"other"}, "read, not recalled"),
        ("a", "b", {}, None, "read, not recalled"),
    ],
)
def test_why_a_probe_is_not_answered_by_hand(before, after, evidence, read, expected):
    read = None if read is None else frozenset(read)
    assert why_not(answer(before), answer(after), evidence, read) == expected


def test_only_reported_probes_to_learn_are_counted():
    after = [answer("b"), answer("x", "right", right=True), answer("b", "held", held_out=True)]
    after.append(answer("b", "old", role="retain"))
    before = [answer("a", one["probe_id"], role=one["role"]) for one in after]
    assert reasons(before, after, {}, None) == {"read, not recalled": 1}


def test_rows_that_were_read_are_those_of_all_updates():
    metrics = [{"step": 1, "first_read": ["a", "b"]}, {"step": 2}, {"step": 3, "first_read": ["c"]}]
    assert rows_read(metrics, 3) == {*"abc"}
    assert rows_read(metrics, 2) == {*"ab"}, "what was read after the update that is kept was not read by its model"
    assert rows_read([{"step": 1}], 3) is None
