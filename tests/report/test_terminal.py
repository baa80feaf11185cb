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
from foci.report import markdown_table, print_table
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
    assert "oracle  20.0→74.2  100→88.9  0.912→0.924  8.0→70.2    19.0     80    72" in text
    assert "20.0->74.2" in printed(summary, "ascii")


def test_terminal_table_survives_nulls_long_names_and_markup() -> None:
    arm = {"learned": {"before": None, "after": None}, "steps": 12345, "seconds": 98765.4, "controls": {}}
    shares = {"before": 0.1234, "after": 0.5678}
    wide = {"learned": shares, "retained": shares, "bits_per_byte": {"before": 10.5, "after": 11.5},
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
    assert lines[3] == "| oracle | 20.0 → 74.2 | 100 → 88.9 | 0.912 → 0.924 | 8.0 → 70.2 | 19.0 | 80 | 72 |"
    odd = markdown_table({"arms": {"a|b\n<i>*": {}}}).splitlines()
    assert len(odd) == 3
    assert odd[2].startswith(r"| a\|b &lt;i&gt;\* |")


def test_the_arms_of_a_default_run_fit_on_a_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", arms=("plain", "train_attention"))
    assert re.search(
        r"^train_attention  20\.0→", printed(json.loads((folder / "summary.json").read_text())), re.MULTILINE
    )
