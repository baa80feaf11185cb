"""The README is short, its tables are what the code says, and what it tells people to type works as pasted."""

import importlib.util
import re
import shlex
from types import ModuleType

import pytest

import runs
import tiny
from paths import ROOT

README = ROOT / "README.md"
LINES, WORDS = 160, 1600
MINUS = "\N{MINUS SIGN}"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="the README is not beside the tests")


def tool(name: str) -> ModuleType:
    path = ROOT / "tools" / f"{name}.py"
    if not path.is_file():
        pytest.skip("tools/ is not beside the tests")
    spec = importlib.util.spec_from_file_location(f"tools_{name}", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def part(name: str) -> str:
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README.read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_readme_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    assert len(text.split()) <= WORDS


@pytest.mark.parametrize("file", ["README.md", "docs/methods/index.md", "docs/your_text.md"])
def test_generated_tables_are_up_to_date(file):
    assert tool("readme").generated(file) == (ROOT / file).read_text(encoding="utf-8"), "run: make readme"


def test_every_method_has_a_card():
    from foci.methods import available

    missing = [name for name in available() if not (ROOT / "docs" / "methods" / f"{name}.md").is_file()]
    assert not missing


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)", README.read_text(encoding="utf-8"))
    assert len(links) > 10
    assert not [link for link in links if "://" not in link and not (ROOT / link).is_file()]


def test_findings_are_those_of_the_results():
    """Every number of a finding stands, with its interval, on the page that it links to."""
    rows = [line for line in part("findings").splitlines() if "docs/results/" in line]
    assert len(rows) == 7
    for row in rows:
        page = re.search(r"docs/results/\w+\.md", row)[0]
        text = (ROOT / page).read_text(encoding="utf-8")
        given = re.sub(r" (%|nats|points)(?= \[)", "", row.split("|")[3])
        intervals = re.findall(rf"[+{MINUS}]?\d+\.\d+ \[[^]]+\]", given)
        assert len(intervals) >= 2
        assert not [interval for interval in intervals if interval not in text], page


def test_the_lines_of_shell_run(tmp_path, monkeypatch, capsys):
    """As pasted, but with a tiny model, one epoch and a quick method. Words that the README shows are printed."""
    commands = [text.splitlines() for text in part("shell").replace("\\\n", "").split("\n$ ")[1:]]
    assert [command[0].split()[:2] for command in commands] == [
        ["foci", name] for name in ("data", "check", "learn", "probe", "report")
    ]
    monkeypatch.chdir(tmp_path)
    tiny.save_model(tmp_path / "tiny")
    quick = ["--model", "tiny", "train.steps=2", "corpus.max_length=64", "arms={plain: [], salient: [salient]}"]
    for command, *shown in commands:
        arguments = shlex.split(command)[1:]
        said = runs.told([*arguments, *(quick if arguments[0] in ("check", "learn") else [])], capsys)
        words = {word for line in shown for word in re.findall(r"[a-z]{3,}", line)}
        missing = words - set(re.findall(r"[a-z]{3,}", said)) - {"focused"}
        assert words
        assert not missing, arguments
    assert (tmp_path / "people.html").is_file()
    assert (tmp_path / "out" / "corpus" / "summary.json").is_file()


@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_the_lines_of_python_run(tmp_path, monkeypatch):
    """As pasted, but with a tiny model."""
    from foci.models import load

    text = re.search(r"```python\n(.*?)```", part("python"), re.DOTALL)[1]
    assert len([line for line in text.splitlines() if line]) <= 12
    monkeypatch.chdir(tmp_path)
    tiny.save_model(tmp_path / "tiny")
    assert text.count('models.load("smollm2-135m")') == 1
    text = text.replace('"smollm2-135m"', '"tiny"')
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(text, "README.md", "exec"), names)
    (row,) = names["rows"]
    assert sum(row.columns["answer"]) > 0
    assert load("tiny").model.num_parameters() < 1e6


def test_the_picture_shows_numbers_of_the_results(tmp_path):
    """Every arm of the picture's CSV stands in a table of results, with its means and intervals."""
    picture = tool("picture")
    tables = "".join((ROOT / "docs" / "results" / f"{n}.md").read_text() for n in ("earlier", "train_attention"))
    tables = tables.replace(MINUS, "-")
    points = picture.points()
    assert len(points) >= 8
    for point in points:
        learned = "{learned} [{learned_low}, {learned_high}]".format(**point)
        retained = "{retained} [{retained_low}, {retained_high}]".format(**point)
        rows = [line for line in tables.splitlines() if line.startswith(f"| {point['arm']} ")]
        assert any(learned in row and retained in row for row in rows), point
    picture.draw(tmp_path / "picture.svg")
    drawn = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert drawn.count("<path") > len(points)


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_every_target_of_make_exists(file):
    makefile = ROOT / "Makefile"
    if not makefile.is_file():
        pytest.skip("the Makefile is not beside the tests")
    named = set(re.findall(r"^make (\w+)|`make (\w+)`", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))
    targets = set(re.findall(r"^(\w+):", makefile.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(named) >= 4
    assert {first or second for first, second in named} <= targets
