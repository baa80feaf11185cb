"""What a suite's table says of its questions, where each seed holds out others, and which probes choose a share."""

from dataclasses import replace
from typing import Any

import pytest

from foci.bench.notes import along_terms, lead
from foci.bench.table import _controls, _differ
from foci.probes import Answer

ASKED = {"learn": 2, "retain": 3, "retain_asked": 4, "held_out_learn": 2, "held_out_retain": 0}
TABLE: dict[str, Any] = {
    "model": "tiny", "matched": "the same number of updates", "seeds": [0, 1], "confidence": 0.95, "baseline": None,
    "questions": ASKED, "questions_by_seed": True, "chosen_on": "held_out_text",
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
