"""Counts with their nouns, in what people read."""

import pytest

from foci.report.glance import _learned
from foci.report.words import retained_words
from foci.system.words import counted, form


@pytest.mark.parametrize(("count", "words"), [(0, "0 rows"), (1, "1 row"), (1200, "1,200 rows")])
def test_a_count_with_its_noun(count, words):
    assert counted(count, "row") == words
    assert form(count, "is", "are") == ("is" if count == 1 else "are")


def test_one_question_and_one_fact():
    arm = {
        "learn_probes": 1, "learned_whole": {"before": 0, "after": 1}, "retained_probes": 1,
        "retained_whole": {"before": 1, "after": 1},
    }  # fmt: skip
    assert "1 of 1 question is answered right" in _learned(arm, {})
    assert retained_words(arm).endswith("(1 fact)")
