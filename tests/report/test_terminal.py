"""The before/after table on the terminal and in Markdown, and numbers as people read them."""

# ruff: noqa: RUF001 - the tables are typeset

import json
import re
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fake_run import write_run
from foci.report.terminal import markdown_table, print_table
from foci.report.warnings import warnings_of
from foci.report.words import change, count, duration, percent, sentence


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("terminal") / "quickstart")


def test_words() -> None:
    assert [percent(x) for x in (0.9996, 0.0001, 0, 1, None)] == ["99.9", "0.1", "0", "100", "–"]
    assert (count(1234567), duration(3725), duration(59.7)) == ("1\u202f234\u202f567", "1 h 02 min", "1 min 00 s")
    assert change({"before": 0.5, "after": 0.5}) == "0"
    assert change({"before": None, "after": 0.5}) == "–"
    assert sentence({}).startswith("was not asked what it learned")
    assert "(before: 9 %)" in sentence({"learned": {"before": 0.09, "after": 0.61}})
    whole = {"learned_whole": {"before": 0.02, "after": 0.4}, "learned": {"before": 0.09, "after": 0.61}}
    assert sentence(whole).startswith("gave 40 % of the answers right (before: 2 %) and 61 % of the answer tokens")


def printed(summary: dict[str, Any], encoding: str = "utf-8") -> str:
    file = TextIOWrapper(BytesIO(), encoding=encoding)
    print_table(summary, Console(file=file, width=80))
    file.flush()
    assert isinstance(file.buffer, BytesIO)
    return file.buffer.getvalue().decode(encoding)


def test_terminal_table_fits_80_columns_in_plain_text(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    text = printed(summary)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "oracle  8.3→68.3  100→88.9  20.0→74.2  100→88.9  0.912→0.924     80    72" in text
    assert "commonest answer would be right for 19.0 % of those to learn" in " ".join(text.split())
    assert "8.3->68.3" in printed(summary, "ascii")


def test_terminal_table_survives_nulls_long_names_and_markup() -> None:
    arm = {"learned": {"before": None, "after": None}, "steps": 12345, "seconds": 98765.4, "controls": {}}
    shares = {"before": 0.1234, "after": 0.5678}
    wide = {"learned_whole": shares, "learned": shares, "retained": shares,
            "bits_per_byte": {"before": 10.5, "after": 11.5},
            "controls": {"balanced": shares, "majority": 0.555}, "steps": 99999, "seconds": 99999}  # fmt: skip
    text = printed({"arms": {"[red]grad_profile_and_more": arm, "wide": wide}})
    assert max(map(len, text.splitlines())) <= 80
    assert "[red]" in text
    assert "12.3→56.8" in text
    with pytest.raises(ValueError, match=r"at least one arm, got \{\}"):
        print_table({"arms": {}}, Console(file=StringIO()))


def test_markdown_table_has_one_line_per_arm_whatever_its_name(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    lines = markdown_table(summary).splitlines()
    assert lines[3] == "| oracle | 8.3 → 68.3 | 100 → 88.9 | 20.0 → 74.2 | 100 → 88.9 | 0.912 → 0.924 | 80 | 72 |"
    odd = markdown_table({"arms": {"a|b\n<i>*": {}}}).splitlines()
    assert len(odd) == 3
    assert odd[2].startswith(r"| a\|b &lt;i&gt;\* |")


def test_names_stay_on_a_line_and_columns_give_way(tmp_path: Path) -> None:
    """Whole answers come first; what is needed least is left out on a narrow terminal."""
    for name, missing in (("train_attention", "nothing"), ("train_attention_with_replay_0", "sec.")):
        folder = write_run(tmp_path / name, arms=("plain", name))
        text = printed(json.loads((folder / "summary.json").read_text()))
        assert re.search(rf"^{name} +8\.3→\d", text, re.MULTILINE)
        assert missing not in text.splitlines()[1]
        assert text.splitlines()[0].split()[:6] == ["arm", "learned", "retained", "learned", "bits", "per"]


def test_a_run_without_probes_to_learn_says_how_to_ask(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    for arm in summary["arms"].values():
        arm |= {"learned": None, "learned_whole": None, "learn_probes": 0, "controls": None}
    text = " ".join(printed(summary).split())
    assert "learned %" not in text
    assert "your text, retained" in text
    assert "note: What was learned was not asked, because there are no probes to learn." in text
    assert "probes.learn=FILE.jsonl" in text


def arm(**changes: Any) -> dict[str, Any]:
    """An arm that learned and kept well."""
    pair = {"before": 0.1, "after": 0.9}
    return {
        "learned_whole": pair, "retained_whole": {"before": 1.0, "after": 0.95}, "retained_probes": 50,
        "retain_asked": 60, "learn_probes": 40, "loss": {"first": 3.0, "last": 1.0}, "guessing_loss": 10.8,
        "learning_rate": 1e-3, "bits_per_byte": {"before": 0.9, "after": 0.95}, "controls": {"majority": 0.2},
        "corpus_bits_per_byte": {"before": 1.0, "after": 0.5},
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"loss": {"first": 3.0, "last": 10.79}, "learning_rate": 1e9}, "diverged: its training loss went from 3.00 to "
         "10.79 nats, where guessing at random gives 10.80. Its model is broken. Train with a lower "
         "train.learning_rate than 1e+09"),
        ({"loss": {"first": 10.9, "last": 10.7}}, None),  # a model with random weights begins there
        ({"loss": {"first": 3.0, "last": 400.0}, "guessing_loss": None}, "diverged: its training loss went from 3.00"),
        ({"corpus_bits_per_byte": {"before": 1.0, "after": 1.9}}, "diverged: bits per byte of the text that it read"),
        ({"retained_whole": {"before": 1.0, "after": 0.8}}, "forgot much: 10 of 50 answers that the model knew are now "
         "wrong. Hold made-up texts to what the untouched model says (the method replay with path: encyclopedia"),
        ({"retained_whole": {"before": 1.0, "after": 0.82}}, None),
        ({"retained_whole": {"before": 1.0, "after": 0.5}, "retained_probes": 8}, None),
        ({"bits_per_byte": {"before": 0.9, "after": 1.2}}, "general text rose from 0.900 to 1.200"),
        ({"learned_whole": {"before": 0.1, "after": 0.2}}, "learned no more than guessing: 20.0 % of the answers are "
         "right, where always giving the commonest one makes 20.0 % right"),
        # one probe, or one answer in each group: the commonest answer is always right, and says nothing
        ({"learned_whole": {"before": 0.0, "after": 1.0}, "controls": {"majority": 1.0}}, None),
        ({"retained_probes": 0, "retained_whole": None}, "before training the model answers none "
         "of the 60 probes to retain"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_told_with_the_cure(changes: dict[str, Any], words: str | None) -> None:
    found = warnings_of(arm(**changes))
    assert (len(found) == 1 and words in found[0]) if words else not found
    text = " ".join(printed({"arms": {"mine": arm(**changes)}}).split())
    assert (f"warning: mine {found[0]}" in text) if words else "warning" not in text
    assert not warnings_of({})


def test_held_out_probes_and_what_was_not_learned_are_told(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    held = {"learned_whole": {"before": 0.0, "after": 0.25}, "learn_probes": 8}
    summary["arms"]["plain"] |= {"held_out": held, "not_learned": {"never read": 2, "read, not recalled": 40}}
    summary["arms"]["oracle"] |= {"held_out": None, "not_learned": {}}
    text = printed(summary)
    assert max(map(len, text.splitlines())) <= 80
    assert "Of 8 more that are held out" in " ".join(text.split())
    assert "plain 0 → 25.0 %." in " ".join(text.split())
    assert "not learned, plain: 2 never read; 40 read, not recalled." in " ".join(text.split())
    assert "not learned, oracle" not in text
    assert "0 -> 25.0 %" in printed(summary, "ascii")


def test_a_few_updates_of_unlike_rows_are_no_divergence_where_the_text_is_predicted_better() -> None:
    """The loss of a plan that weighs tokens jumps from update to update; bits per byte of the corpus do not."""
    arm = {"loss": {"first": 3.44, "last": 5.21}, "guessing_loss": 10.8}
    arm |= {"corpus_bits_per_byte": {"before": 1.37, "after": 1.32}}
    assert not any("diverged" in warning for warning in warnings_of(arm))
    worse = arm | {"corpus_bits_per_byte": {"before": 1.37, "after": 1.38}}
    assert any("diverged" in warning for warning in warnings_of(worse))
