"""The report says what a run's files say, survives what is missing, and shows the run's text as text."""

# ruff: noqa: RUF001 - the report is typeset

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import foci.report
from fake_run import STEPS, write_run
from foci.report import style
from foci.report.measure import losses, path, reconstruct, verdict
from foci.report.page import labels, named_arms, probe_table, samples, script_json
from foci.report.plots import Line, learned_against_retained, line, over_steps, thin
from foci.report.read import read_run
from foci.report.tokens import kinds, spread
from foci.report.write import write_report

EVIL = "</script><script>window.evil=1;alert(1)</script><img src=x onerror='window.evil=1'>\u2028&amp;"
NAME = EVIL.replace("/", "")
"""The same as the name of an arm, which leads to no other folder."""


class Page(HTMLParser):
    """Counts elements, keeps their attributes and the text of script elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        inside = self.elements[-1][0] if self.elements else ""
        (self.scripts if inside == "script" else self.words).append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "quickstart")


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return write_report([run], run / "report.html").read_text(encoding="utf-8")


def rows_of(html: str, table: str) -> list[str]:
    body = html[html.index(f'<table id="{table}"') :]
    body = body[body.index("<tbody>") : body.index("</tbody>")]
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in body.split("</tr>") if "<td" in row]


def test_says_the_result_of_each_arm_in_words(html: str) -> None:
    said = html.replace("\u00a0%", " %")
    right = "gave 68 % of the answers right (before: 8 %) and 74 % of the answer tokens (before: 20 %)"
    assert f"<strong>oracle</strong> {right}" in said
    assert "and kept 89 % of what the model knew (54 facts)." in said


def test_before_after_table_has_the_numbers_of_the_summary(html: str) -> None:
    plain, oracle = rows_of(html, "before-after")
    assert (
        plain
        == "plain 8.3 30.0 +21.7 100 96.3 −3.7 20.0 40.0 +20.0 100 96.3 −3.7 0.912 0.916 +0.004 1.310 1.152 −0.158"
    )
    assert oracle.startswith("oracle 8.3 68.3 +60.0 100 88.9 −11.1 20.0 74.2 +54.2")
    assert rows_of(html, "controls")[0] == "plain 30.0 19.0 5.0 30.0 +25.0 8.0 51.0 61.0 +10.0 60 54 of 60"
    assert rows_of(html, "cost")[0] == "plain 80 20 800 1 min 12 s 287 6.1 –"
    assert len(rows_of(html, "kinds")) == 4
    assert len(rows_of(html, "path")) == 2 * len(STEPS)


def test_says_where_the_weight_lies(html: str) -> None:
    lines = rows_of(html, "spread")
    assert [line.split()[0] for line in lines] == ["oracle"] * len(lines), "plain weighs all tokens alike"
    assert re.fullmatch(r"oracle answers \d+ 1\.000 100", lines[0]), lines
    assert re.fullmatch(r"oracle all but answers \d+ 0\.000 0", lines[1]), lines


def test_kinds_of_tokens_by_hand() -> None:
    sample = {
        "row_id": "a", "tokens": ["In", " Bern", ",", " 3", "rd", " day", "<eos>"],
        "weights": [9.0, 0.5, 0.0, 1.0, 0.25, 0.25, 1.0],
    }  # fmt: skip
    lines = spread([("a", [sample])])
    assert [(line["kind"], line["tokens"], line["mean"], line["share"]) for line in lines] == [
        ("numbers", 2, 0.625, 0.625),
        ("capitalised words", 1, 0.5, 0.25),
        ("other words", 1, 0.25, 0.125),
        ("punctuation", 1, 0.0, 0.0),
    ], "without the first token, which nothing predicts, and the end of the row"
    assert kinds(["1", "98", "4–", "85", " don", "’t", "\n", "[SEP]"]) == [
        "numbers", "numbers", "numbers", "numbers", "other words", "other words", "punctuation", "special tokens",
    ]  # fmt: skip


def test_has_what_was_asked_versions_and_run_file(html: str) -> None:
    page = Page(html)
    for wanted in ("smollm2-135m", "2026-11-22 09:14 UTC", "5\u202f312", "Oracle(keep=0.0)", "5.23.0", "seed: 0"):
        assert wanted in page.text


def test_loads_nothing_and_allows_only_its_own_script(html: str) -> None:
    page = Page(html)
    loads = [a for _, a in page.elements for k in a if k in ("src", "srcset", "data", "action", "poster")]
    assert loads == []
    assert all(a["href"].startswith("#") for _, a in page.elements if a.get("href"))
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "img", "object", "embed", "base"}
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", html)
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert "unsafe-inline'; script-src 'sha256-" in html


def test_is_small_and_its_ids_are_unique(html: str) -> None:
    assert len(html) < 400_000
    ids = [a["id"] for _, a in Page(html).elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_figures_are_titled_themed_and_told_apart(html: str) -> None:
    page = Page(html)
    figures = [a for tag, a in page.elements if tag == "svg" and a.get("role") == "img"]
    assert len(figures) == 8
    assert all(a["aria-label"] for a in figures)
    assert not re.search(r"#fe0[01]", html)
    assert "oracle · step 80 · learned 68.3 %, retained 88.9 %" in {a.get("data-tip") for _, a in page.elements}


def test_text_of_the_run_is_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", name=f"run{EVIL}", arms=("plain", f"oracle{NAME}"), probes=20, evil=EVIL)
    html = write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    harmless = write_report([write_run(tmp_path / "ok", probes=20)], tmp_path / "ok.html").read_text(encoding="utf-8")
    page, expected = Page(html), Page(harmless)

    def counted(page: Page) -> dict[str, int]:
        return {tag: sum(t == tag for t, _ in page.elements) for tag in ("script", "img", "tr", "article", "svg")}

    assert counted(page) == counted(expected)
    assert [script for script in page.scripts if "window.evil" in script] == [page.scripts[0]]
    assert EVIL in json.dumps(json.loads(page.scripts[0]), ensure_ascii=False)
    assert f"run{EVIL}" in page.text
    assert not [a for _, a in page.elements if "onerror" in a]


def test_script_json_cannot_leave_its_element() -> None:
    value = {"a": "</script><!--\u2028\u2029&", "b": float("nan"), "c": [1.5, None]}
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": value["a"], "b": None, "c": [1.5, None]}


def test_several_runs_name_their_arms_by_run(tmp_path: Path, run: Path) -> None:
    other = write_run(tmp_path / "second", name="longer", arms=("plain",), probes=10)
    twin = write_run(tmp_path / "twin", probes=10, arms=("plain",))
    runs = [read_run(run), read_run(other)]
    assert [name for name, _ in named_arms(runs)] == ["quickstart/plain", "quickstart/oracle", "longer/plain"]
    assert len(set(labels([*runs, read_run(twin), read_run(twin)]))) == 4
    html = write_report([run, other], tmp_path).read_text(encoding="utf-8")
    assert len(rows_of(html, "before-after")) == 3
    assert (tmp_path / "report.html").is_file()


def test_a_note_on_the_corpus_does_not_make_a_report_incomplete(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", probes=10)
    summary = json.loads((folder / "summary.json").read_text())
    summary["corpus"]["notes"] = ["plain text for a chat model"]
    (folder / "summary.json").write_text(json.dumps(summary))
    text = Page(write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "Corpus: plain text for a chat model." in text
    assert "incomplete" not in text


def test_a_killed_run_reports_what_there_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "killed", finished=False)
    page = Page(write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "This report is incomplete." in page.text
    assert "no summary.json" in page.text
    assert "Arm plain: metrics.jsonl has 1 torn line, left out." in page.text
    assert "Arm oracle: probes were answered only before the first step" in page.text
    run = read_run(folder)
    assert run.name == "quickstart"
    assert run.arms[0].numbers["learned"] == {"before": 0.2, "after": None}
    assert run.arms[0].numbers["steps"] == 79
    assert run.arms[0].numbers["retained_probes"] == 54


@pytest.mark.parametrize(
    "gone",
    ["run.yaml", "corpus.json", "arms", "arms/plain/probes", "arms/plain/samples.json", "arms/plain/metrics.jsonl"],
)
def test_any_missing_piece_is_survived(tmp_path: Path, gone: str) -> None:
    folder = write_run(tmp_path / "run", probes=10)
    (folder / gone).rename(tmp_path / "gone")
    assert "plain" in write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")


def test_only_the_run_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: early\nmodel: {name: m}\narms: {plain: [], o: [{oracle: {keep: 0.1}}]}\n")
    text = Page(write_report([tmp_path], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "No probes were answered in this run." in text
    assert "oracle(keep=0.1)" in text


@pytest.mark.parametrize("torn", ["summary.json", "arms/plain/samples.json", "arms/plain/probes/step-000080.parquet"])
def test_a_torn_file_is_told(tmp_path: Path, torn: str) -> None:
    folder = write_run(tmp_path / "run", probes=10)
    (folder / torn).write_bytes((folder / torn).read_bytes()[:30])
    text = Page(write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert f"{Path(torn).name} cannot be read and is left out" in text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"is not a run: expected run.yaml or summary.json.*found notes.txt"):
        write_report([tmp_path], tmp_path / "r.html")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_report([tmp_path / "absent"], tmp_path / "r.html")
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_report_imports_neither_torch_nor_what_is_above_system() -> None:
    package = Path(foci.report.__file__).parents[1]
    code = f"""
import sys, types
foci = sys.modules["foci"] = types.ModuleType("foci")  # the package without its __init__
foci.__path__ = [{str(package)!r}]
import foci.report.write, foci.report.terminal
ours = {{m.split(".")[1] for m in sys.modules if m.startswith("foci.")}}
heavy = {{"torch", "transformers", "matplotlib.pyplot"}} & set(sys.modules)
sys.exit(str((ours, heavy)) if ours != {{"report", "system"}} or heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def answer(accuracy: float, role: str = "learn", counted: bool = True) -> dict[str, Any]:
    return {"role": role, "accuracy": accuracy, "counted": counted, "correct": accuracy == 1}


def test_numbers_are_reconstructed_from_probes() -> None:
    before = [answer(0.5), answer(0.0), answer(1.0, "retain"), answer(0.0, "retain", counted=False)]
    after = [answer(1.0), answer(0.5), answer(0.5, "retain"), answer(1.0, "retain", counted=False)]
    points = path({0: before, 8: after}, [{"step": 8, "bits_per_byte": 0.9}])
    assert points[1]["learned"] == 0.75
    arm = reconstruct(points, {0: before, 8: after}, [{"step": 8, "tokens": 96, "padding": 0.25, "seconds": 2.0}])
    assert arm["learned"] == {"before": 0.25, "after": 0.75}
    assert arm["learned_whole"] == {"before": 0.0, "after": 0.5}
    assert arm["retained_whole"] == {"before": 1.0, "after": 0.0}
    assert arm["retained"] == {"before": 1.0, "after": 0.5}
    assert arm["bits_per_byte"] == {"before": None, "after": 0.9}
    assert (arm["retained_probes"], arm["retain_asked"], arm["learn_probes"], arm["tokens"]) == (1, 2, 2, 96)
    assert verdict(before[0], after[0]) == "newly right"
    assert verdict(before[2], after[2]) == "forgotten"
    assert verdict(before[0], None) == "not asked again"


def test_a_report_of_an_unfinished_run_counts_as_the_summary_does() -> None:
    before = [
        answer(0.0),
        {**answer(0.0), "held_out": True},
        answer(1.0, "retain"),
        {**answer(1.0, "retain"), "held_out": True},
    ]
    arm = reconstruct(path({0: before}, []), {0: before}, [])
    assert (arm["learn_probes"], arm["retain_asked"], arm["retained_probes"]) == (1, 1, 1)


def test_probes_to_learn_and_to_retain_may_have_the_same_ids(run: Path) -> None:
    arm = read_run(run).arms[0]
    for answers in (arm.before, arm.after):
        for role in ("learn", "retain"):
            for number, one in enumerate(one for one in answers if one["role"] == role):
                one["probe_id"] = f"{number}"
    table = probe_table([("plain", arm)])
    assert len(table["rows"]) == 120
    roles = [table["texts"][row[1]] for row in table["rows"]]
    assert roles.count("learn") == sum(one["role"] == "learn" for one in arm.before)


def test_probe_rows_join_by_id_not_by_position(run: Path) -> None:
    arm = read_run(run).arms[0]
    arm.after.reverse()
    table = probe_table([("plain", arm)])
    rows = {table["texts"][row[9]]: row for row in table["rows"]}
    assert len(rows) == 120
    outcomes = [table["texts"][row[8]] for row in table["rows"]]
    flips = [outcome in ("forgotten", "newly right") for outcome in outcomes]
    assert any(flips), "some outcome changed"
    assert flips == sorted(flips, reverse=True), "and those come first"
    assert [table["texts"][i] for i in rows["probe-0003"][4:9]] == [
        "Question: what is the employer of Tomaz Ferrin 3?\nAnswer:", "Corvane Ltd",
        "the", "Corvane Ltd", "newly right",
    ]  # fmt: skip
    assert rows["probe-0003"][12:] == [3.11, 0.31, 1]


def test_the_best_arm_comes_first_among_the_changed(run: Path) -> None:
    """The run's arms are plain and oracle, and oracle learned and kept more."""
    table = probe_table([(arm.name, arm) for arm in read_run(run).arms])
    names = {outcome: [] for outcome in ("forgotten", "newly right")}
    for row in table["rows"]:
        names.setdefault(table["texts"][row[8]], []).append(table["texts"][row[0]])
    for outcome in ("forgotten", "newly right"):
        assert set(names[outcome]) == {"plain", "oracle"}
        assert names[outcome] == sorted(names[outcome]), "oracle before plain"


def test_sample_rows_keep_their_source_and_short_columns_are_padded(run: Path) -> None:
    arms = named_arms([read_run(run)])
    rows, top = samples(arms)
    assert len(rows) == 6
    assert rows[0]["source"] == "biographies.jsonl:1"
    assert [arm["name"] for arm in rows[0]["arms"]] == ["plain", "oracle"]
    assert top >= 1
    arms[0][1].samples[:] = [{"row_id": "a", "tokens": ["x", "y\n"], "weights": [0.5], "nll_before": None}]
    tokens = samples(arms[:1])[0][0]["arms"][0]["tokens"]
    assert tokens[0] == {"text": "x", "weight": 0.5, "before": None, "after": None}
    assert tokens[1] == {"text": "y⏎\n", "weight": None, "before": None, "after": None}


def test_long_curves_are_thinned_to_means() -> None:
    curve, size = thin(Line("a", 0, [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 3.0, 5.0, 7.0, 9.0]), most=3)
    assert (size, curve.steps, curve.values) == (2, [1.5, 3.5, 5], [2, 6, 9])


def test_curves_leave_out_null_and_nan() -> None:
    points = [{"step": 0, "learned": None}, {"step": 1, "learned": float("nan")}, {"step": 2, "learned": 0.5}]
    assert line("a", 0, points, "learned").steps == [2.0]
    assert over_steps([line("a", 0, points, "learned")], "percent", "t", "k") is None


def test_two_points_of_one_arm_have_a_tip_each() -> None:
    points = [
        {"at": at, "learned_whole": x, "retained_whole": 1 - x} for at, x in ((0.0, 0.0), (0.6, 0.3), (0.604, 0.5))
    ]
    drawn = str(learned_against_retained([("a", points)], by="at"))
    assert "a · 60 % of the change · learned 30.0 %" in drawn
    assert "a · 60.4 % of the change · learned 50.0 %" in drawn
    assert len(re.findall('id="slide-p0-', drawn)) == len(set(re.findall('id="slide-p0-[0-9]+"', drawn))) == 3


def test_figures_are_the_same_every_time() -> None:
    curve = Line("$x_1$ <b>", 7, [0.0, 1.0], [0.2, 0.4])
    assert over_steps([curve], "percent", "t", "k") == over_steps([curve], "percent", "t", "k")


def test_files_and_pages_have_the_same_colours(html: str) -> None:
    """The palette of figures in files (style.py) is the light one of the style sheet."""
    first = [re.search(rf"{name}: (#\w{{6}})", html)[1] for name in ("--ink", "--faint", "--rule")]
    assert first == [style.FILE.ink, style.FILE.faint, style.FILE.rule]
    arms = [re.search(rf"--arm-{k}: (#\w{{6}})", html)[1] for k in range(style.ARM_COLOURS)]
    assert tuple(arms) == style.COLOURS[: style.ARM_COLOURS]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast_in_light_and_dark(scheme: int, html: str) -> None:
    theme = {name: values[scheme] for name in ("--paper", "--ink", "--faint", "--link", "--good", "--bad", "--warn")
             if (values := re.findall(rf"{name}: (#\w{{6}})", html))}  # fmt: skip
    full = int(re.findall(r"--full: (\d+)%", html)[scheme]) / 100
    arms = [re.findall(rf"--arm-{k}: (#\w{{6}})", html)[scheme] for k in range(6)]
    assert len(set(arms)) == 6
    for name in ("--ink", "--faint", "--link", "--good", "--bad"):
        assert contrast(theme[name], theme["--paper"]) >= 4.5, name
    assert contrast(theme["--ink"], theme["--warn"]) >= 4.5
    for arm in arms:
        assert contrast(arm, theme["--paper"]) >= 3, arm
        mixed = "#" + "".join(
            f"{round(full * int(arm[i : i + 2], 16) + (1 - full) * int(theme['--paper'][i : i + 2], 16)):02x}"
            for i in (1, 3, 5)
        )
        assert contrast(theme["--ink"], mixed) >= 4.5, arm


def test_the_loss_of_updates_that_learn_no_token_is_no_first_loss():
    """Held rows alone: the model says what the untouched model says, so that the first loss is 0."""
    held = {"loss": 0.0, "weighted_tokens": 0}
    learned = [{"loss": loss, "weighted_tokens": 5} for loss in (4.0, 3.0)]
    assert losses([held, *learned, held]) == {"first": 4.0, "last": 3.0}
    assert losses([{"loss": 2.0}]) == {"first": 2.0, "last": 2.0}, "runs of earlier versions do not say how many"
    assert losses([held]) == {"first": None, "last": None}
