"""Names and texts that would steer a terminal, a page or a table: they are shown as they are written, everywhere."""

import io
import json
import re

import pytest

import runs
from foci.report import tables
from foci.report.page import script_json
from foci.report.write import write_report
from foci.system.harmless import visible
from foci.system.terminal import Terminal
from paths import ROOT

STEERING = "\x1b[2J\x9b1m\x07\x08\u202e\u2066\u200f"
NAME = "[/x] [bold]b :smile: " + STEERING
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


def test_what_steers_is_written_out_and_nothing_else_is_touched():
    assert visible(STEERING) == r"\x1b[2J\x9b1m\x07\x08\u202e\u2066\u200f"
    kept = "Zoë said: \t\N{ARABIC LETTER SEEN}, 東京\n\N{ZERO WIDTH JOINER}☕ [bold]"
    assert visible(kept) == kept
    assert visible("\ud800") == r"\ud800"
    assert visible(visible(STEERING)) == visible(STEERING)


@pytest.mark.parametrize("width", [20, 200])
def test_the_console_shows_texts_as_they_are(width):
    shown = io.StringIO()
    console = Terminal(file=shown, width=width, force_terminal=True, color_system=None)
    console.print(f"report: {NAME}", soft_wrap=True)
    console.print(tables.terminal(tables.Table(("arm", NAME), [[NAME, STEERING]])))
    said = shown.getvalue()
    assert not RAW.search(said)
    assert said.splitlines()[0] == f"report: {visible(NAME)}"


def test_every_command_prints_through_that_console():
    """A console of rich would read `[x]` as markup and pass escape characters on."""
    own = ROOT / "src" / "foci" / "system" / "terminal.py"
    for path in (ROOT / "src").rglob("*.py"):
        if path != own:
            assert not re.search(r"(?<![\w.])Console\(", path.read_text(encoding="utf-8")), path


def test_commands_end_well_whatever_their_paths_are_called(tmp_path, things, capsys):
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    file = runs.run_file(folder, things, arms={"plain": []}, train={"epochs": None, "steps": 1}, name=NAME)
    said = runs.told(["learn", file], capsys)
    out = visible(str(folder / "out"))
    assert f"report: {out}/report.html" in said
    more = [
        runs.told(["report", folder / "out"], capsys),
        runs.told(["data", "biographies", "--people", "2", "--texts", "1", "--out", folder / "data"], capsys),
        runs.told(["data", "pairs", "--count", "2", "--out", folder / "pairs.jsonl"], capsys),
        runs.told(["check", file], capsys),
        runs.refused(["learn", file], capsys),
        runs.refused(["learn", folder / "nothing.yaml"], capsys),
    ]
    for words in (said, *more):
        assert not RAW.search(words), words
        assert visible(NAME) in words or words.startswith("name:")  # a run file spells them in YAML
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert not RAW.search(page)
    assert visible(NAME) in page


def test_texts_of_a_page_and_of_a_table_are_written_out(tmp_path):
    assert visible(STEERING) in json.loads(script_json({"said": [STEERING], STEERING: 1}))["said"]
    assert not RAW.search(script_json({STEERING: [STEERING]}))
    shown = tables.markdown(tables.Table(("arm", "n"), [[f"<b>{NAME}", "1"]]))
    assert not RAW.search(shown)
    assert "<b>" not in shown
    run = runs_folder(tmp_path)
    page = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert not RAW.search(page)


def runs_folder(folder):
    """A run whose files hold steering characters in every text."""
    from fake_run import write_run

    return write_run(folder / "run", name=NAME, arms=(f"a{STEERING}", "plain"), probes=3, evil=STEERING)
