"""What a suite's table says of its questions, where each seed holds out others, and which probes choose a share."""

from dataclasses import replace
from typing import Any

import pytest

from foci.bench.markdown import _differences, _perplexities, _results
from foci.bench.notes import along_terms, lead
from foci.bench.points import COSTS, METRICS
from foci.bench.table import _controls, _differ, _path
from foci.probes import Answer

ASKED = {"learn": 2, "retain": 3, "retain_asked": 4, "held_out_learn": 2, "held_out_retain": 0}
TABLE: dict[str, Any] = {
    "model": "tiny", "matched": "the same number of updates", "seeds": [0, 1], "confidence": 0.95, "baseline": None,
    "arms": {}, "questions": ASKED, "questions_by_seed": True, "chosen_on": "held_out_text",
    "slide": {"how": "scale", "points": [1.0], "keep": 0.95, "prose": 1.01},
}  # fmt: skip


def answered(number: int, answer: str, held_out: bool) -> Answer:
    return Answer(
        probe_id=str(number), role="learn", kind="cloze", group="town", prompt="p", answer=answer, predicted="",
        accuracy=0.0, correct=False, exact_match=None, f1=None, nll=1.0, counted=True, held_out=held_out,
    )  # fmt: skip


def test_the_majority_answer_is_a_mean_over_the_seeds():
    """Of Bern, Bern, Rome, Paris the first seed reports Bern and Bern, the second one all but them."""
    towns = [answered(n, town, n > 1) for n, town in enumerate(("Bern", "Bern", "Rome", "Paris"))]
    other = [replace(one, held_out=not one.held_out) for one in towns]
    assert _controls([towns, other])["majority"] == pytest.approx((1.0 + 0.5) / 2)
    assert _controls([towns])["majority"] == 1.0
    assert _differ([towns, other])
    assert not _differ([towns, towns])


def test_counts_of_one_seed_are_said_to_be_of_it():
    assert "These are the numbers of seed 0: each seed holds out others." in lead(TABLE)
    assert "These are the numbers" not in lead(TABLE | {"questions_by_seed": False})


@pytest.mark.parametrize(
    ("learn", "retain", "words"),
    [
        (2, 0, "chosen on the held-out probes to learn and half of the facts to retain"),
        (0, 2, "chosen on the held-out probes to retain and half of the facts to learn"),
        (2, 2, "chosen on the held-out probes;"),
        (0, 0, "chosen on half of the facts, drawn by the seed"),
    ],
)
def test_what_chooses_a_share_is_said_whatever_chooses_the_point(learn, retain, words):
    asked = ASKED | {"held_out_learn": learn, "held_out_retain": retain}
    assert words in along_terms(TABLE | {"questions": asked})["along the change"]


def test_an_arm_with_fewer_seeds_names_them_beside_every_mean():
    mean = {"mean": 0.5, "difference": {"mean": 0.1}, "values": [0.5]}
    told = dict.fromkeys((*METRICS, *COSTS), mean)
    arms = {
        "plain": {"seeds": [0, 1, 2]},
        "x": {"seeds": [0, 2]},
        "y": {"seeds": []},
    }
    arms = {name: one | {"end": told, "top": {}, "peak_memory_mib": {}} for name, one in arms.items()}
    found = TABLE | {
        "seeds": [0, 1, 2], "baseline": "plain", "arms": arms, "controls": None,
        "untouched": dict.fromkeys(METRICS, 0.5),
    }  # fmt: skip
    names = ["plain", "x (seeds 0, 2)", "y (no seed)"]
    assert [row[0] for row in _results(found, "end").rows[:3]] == names
    assert [row[0] for row in _perplexities(found, "end").rows[:3]] == names
    assert [row[0] for row in _differences(found, "end").rows] == names[1:]
    assert "An arm that has fewer of them names them." in lead(found)
    arms["plain"]["seeds"] = [1, 2]
    assert [row[0] for row in _differences(found, "end").rows] == ["x (seed 2)", "y (no seed)"]


def test_the_last_point_of_a_path_is_the_end_also_where_seeds_end_at_other_updates():
    def path(*steps):
        return [dict.fromkeys(METRICS) | {"step": step, "learned": step / 100} for step in steps]

    assert [p["step"] for p in _path([path(0, 4, 8), path(0, 4, 8)])] == [0, 4, 8]
    found = _path([path(0, 4, 8, 30), path(0, 4, 8, 34)])
    assert [p["step"] for p in found] == [0, 4, 8, 32]
    assert found[-1]["learned"]["mean"] == pytest.approx(0.32)
    assert [p["step"] for p in _path([path(0, 4, 8), path(0, 4)])] == [0, 6]
