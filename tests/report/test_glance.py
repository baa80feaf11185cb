"""The top of the report: three lines, a picture, examples; each by hand from a few numbers."""

from pathlib import Path
from typing import Any

import pytest

from fake_run import write_run
from foci.report.glance import flipped, glance, picture
from foci.report.measure import best_arm
from foci.report.page import named_arms
from foci.report.read import Arm, read_run


def arm(name: str, numbers: dict[str, Any], before: Any = (), after: Any = ()) -> tuple[str, Arm]:
    return name, Arm(name, [], numbers, [], [], list(before), list(after), 1, [])


def answer(key: str, right: bool, role: str = "learn", counted: bool = True) -> dict[str, Any]:
    said = f"answer of {key}" if right else "the"
    return {"probe_id": key, "role": role, "correct": right, "counted": counted, "prompt": f"What of\n{key}?",
            "answer": f"answer of {key}", "predicted": said}  # fmt: skip


def pair(before: float | None, after: float | None) -> dict[str, float | None]:
    return {"before": before, "after": after}


WHOLE = {
    "learned_whole": pair(0.125, 0.75), "learned": pair(0.2, 0.8), "learn_probes": 8,
    "retained_whole": pair(1.0, 0.9), "retained": pair(1.0, 0.9), "retained_probes": 20,
    "bits_per_byte": pair(1.0, 1.05), "seconds": 90.0, "steps": 40, "peak_memory_mib": 4096.0,
}  # fmt: skip
OTHER = WHOLE | {"learned_whole": pair(0.125, 0.25), "learned": pair(0.2, 0.3), "retained_whole": pair(1.0, 1.0)}


def lines(*arms: tuple[str, Arm]) -> dict[str, str]:
    return dict(glance("run", arms)["lines"])


def test_three_lines_say_learned_lost_and_cost() -> None:
    assert lines(arm("focused", WHOLE)) == {
        "Learned": "6 of 8 questions are answered right, 1 before.",
        "Lost": "2 of the 20 answers that it knew. General text is predicted 5 % worse than before.",
        "Cost": "1 min 30 s of training (40 updates), 4.0 GiB of memory.",
    }


def test_the_best_arm_speaks_and_the_others_stand_in_brackets() -> None:
    found = glance("run", [arm("plain", OTHER), arm("focused", WHOLE)])
    assert found["lines"][0][1] == "6 of 8 questions are answered right, 1 before (plain: 2)."
    assert found["lines"][1][1].startswith("2 of the 20 answers that it knew (plain: 0).")
    assert found["of"] == "These are of focused, which learned and kept the most of 2 arms."


@pytest.mark.parametrize(
    ("numbers", "learned", "lost"),
    [
        ({}, "Not known yet.", "Not known yet."),
        ({"learned": pair(0.2, 0.5)}, "50.0 % of the answer tokens are predicted, 20.0 % before.",
         "Nothing was asked that it knew."),
        (WHOLE | {"learned_whole": pair(0.0, 0.0), "bits_per_byte": None, "retained_probes": 0},
         "0 of 8 questions are answered right, 0 before. Of the answer tokens 80 % are predicted, 20 % before.",
         "Nothing was asked that it knew."),
        ({"corpus_bits_per_byte": pair(2.0, 1.0), "bits_per_byte": pair(1.0, 1.001)},
         "The text is predicted 50 % better than before, 1.000 bits per byte (2.000 before; lower is better).",
         "General text is predicted as well as before."),
        (WHOLE | {"retained_whole": pair(1.0, 1.0), "bits_per_byte": None},
         "6 of 8 questions are answered right, 1 before.", "None of the 20 answers that it knew."),
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_invented(numbers: dict[str, Any], learned: str, lost: str) -> None:
    found = lines(arm("plain", numbers))
    assert (found["Learned"], found["Lost"]) == (learned, lost)


def test_the_best_arm_is_that_with_the_most_learned_and_retained() -> None:
    broken = OTHER | {"learned": pair(0.2, 0.9), "retained": pair(1.0, 0.1)}
    assert best_arm({"plain": broken, "focused": WHOLE, "no numbers": {}}) == "focused"
    assert best_arm({"a": WHOLE, "b": WHOLE}) == "a"
    texts = [{"corpus_bits_per_byte": pair(2, after), "bits_per_byte": pair(1, 1)} for after in (1.5, 1.2)]
    assert best_arm({"a": texts[0], "b": texts[1]}) == "b"


def test_examples_are_of_answers_that_changed() -> None:
    right = {"a": (False, True), "b": (True, False), "c": (False, False), "d": (False, True), "e": (True, True)}
    before, after = ([answer(key, was[n], "retain" if key == "b" else "learn") for key, was in right.items()]
                     for n in (0, 1))  # fmt: skip
    (found,) = [glance("run", [arm("plain", WHOLE, before, after)])["examples"]]
    assert [(one["prompt"], one["before"], one["after"], one["outcome"]) for one in found] == [
        ("What of a?", "the", "answer of a", "newly right"),
        ("What of d?", "the", "answer of d", "newly right"),
        ("What of b?", "answer of b", "the", "forgotten"),
    ]
    none = glance("run", [arm("plain", WHOLE, before[2:3], after[2:3])])["examples"]
    assert [one["outcome"] for one in none] == ["still wrong"], "where nothing changed, what was said all the same"


def test_examples_of_probes_with_the_same_id_are_not_mixed_up() -> None:
    before, after = ([answer("a", right), answer("a", not right, "retain")] for right in (False, True))
    (found,) = [glance("run", [arm("plain", WHOLE, before, after)])["examples"]]
    assert [one["outcome"] for one in found] == ["newly right", "forgotten"]


def test_what_counts_and_changed_comes_first() -> None:
    pairs = {
        "forgotten": (answer("a", True, "retain"), answer("a", False, "retain")),
        "newly right": (answer("a", False), answer("a", True)),
        "newly right, uncounted": (answer("a", False, "retain", False), answer("a", True, "retain", False)),
        "still right": (answer("a", True), answer("a", True)),
        "not asked again": (answer("a", True), None),
    }
    assert {name: flipped(*found) for name, found in pairs.items()} == {
        "forgotten": 0, "newly right": 1, "newly right, uncounted": 3, "still right": 4, "not asked again": 4,
    }  # fmt: skip


def test_the_picture_has_a_bar_for_each_arm_and_measure(tmp_path: Path) -> None:
    arms = named_arms([read_run(write_run(tmp_path / "run"))])
    drawn = picture([(name, one.numbers) for name, one in arms])
    tips = [f"{name} · {was} → {now} %" for name, was, now in (
        ("plain", 8, 30), ("oracle", 8, 68), ("plain", 100, 96), ("oracle", 100, 89))]  # fmt: skip
    assert drawn is not None
    assert all(f'data-tip="{tip}"' in drawn for tip in tips)
    assert picture([("plain", {})]) is None
    text = picture([("plain", {"corpus_bits_per_byte": pair(2.0, 1.0)})])
    assert text is not None
    assert "2.000 → 1.000" in text
