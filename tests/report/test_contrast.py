"""The report's part about two models' attention, from what an offline half writes."""

import json
import re

import pytest

from fake_run import write_run
from foci.report.contrast import contrasts
from foci.report.read import read_run
from foci.report.write import write_report

EVIL = "</span><script>alert(1)</script>"
ROW = {
    "row_id": "abc",
    "source": "corpus.jsonl:3",
    "tokens": ["Ada", " was", EVIL, "."],
    "large": [0.9, 0.02, 0.04, 0.01],
    "small": [0.5, 0.08, 0.02, 0.01],
    "difference": [0.4, -0.06, 0.02, 0.0],
    "drop": [0.1, 0.5, 0.25, 0.0],
}


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def write(run, arm, rows, number=0):
    folder = run / "arms" / arm / "scores" / f"{number}-contrast"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contrast.json").write_text(json.dumps({"rate": 0.2, "method": "Contrast(...)", "rows": rows}))


def arms_of(run):
    return [arm.name for arm in read_run(run).arms]


def test_lines_are_scaled_by_what_follows_the_first_token(run):
    first, second = arms_of(run)[:2]
    write(run, first, [ROW])
    write(run, second, [{**ROW, "drop": [0.0, 0.0, 0.2, 0.0]}])
    (row,) = contrasts([read_run(run)], ["run"])
    assert [line["title"] for line in row["lines"]] == [
        "large model", "small model", "large − small", f"dropped, {first}", f"dropped, {second}",  # noqa: RUF001
    ]  # fmt: skip
    values = [[token["v"] for token in line["tokens"]] for line in row["lines"]]
    assert values == [
        [1.0, 0.25, 0.5, 0.125], [1.0, 1.0, 0.25, 0.125], [1.0, -1.0, 0.333, 0.0], [0.2, 1.0, 0.5, 0.0],
        [0.0, 0.0, 1.0, 0.0],
    ]  # fmt: skip
    assert row["lines"][2]["tokens"][1]["note"] == "difference -0.0600"
    assert row["source"] == "corpus.jsonl:3"


def test_other_models_have_lines_of_their_own(run):
    first, second = arms_of(run)[:2]
    write(run, first, [ROW])
    write(run, second, [{**ROW, "large": [0.1, 0.1, 0.1, 0.1]}])
    assert [len(row["lines"]) for row in contrasts([read_run(run)], ["run"])] == [4, 4]


def test_the_page_shows_it_and_text_stays_text(run):
    plain = write_report([run], run / "plain.html").read_text(encoding="utf-8")
    assert 'id="contrast"' not in plain
    assert "#contrast" not in plain
    write(run, arms_of(run)[0], [ROW] * 1 + [{**ROW, "row_id": f"r{n}", "large": [n, 0, 0, 1]} for n in range(5)])
    html = write_report([run], run / "report.html").read_text(encoding="utf-8")
    section = html[html.index('<section id="contrast">') : html.index('<section id="environment">')]
    assert section.count("<article") == 6
    assert "3 more rows" in section
    assert "<script" not in section
    assert "&lt;script&gt;" in section
    assert re.search(r'<span style="--d:-1.0;--arm:var\(--arm-1\)" title="difference -0.0600"> was</span>', section)


def test_what_is_torn_is_left_out(run):
    first = arms_of(run)[0]
    write(run, first, [{**ROW, "drop": [0.1]}, {"row_id": "x"}, "no row", ROW])
    assert len(contrasts([read_run(run)], ["run"])) == 1
    (run / "arms" / first / "scores" / "0-contrast" / "contrast.json").write_text('{"rows": [')
    assert contrasts([read_run(run)], ["run"]) == []
