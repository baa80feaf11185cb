"""The slider of a suite: every cell is asked along its change, and arms are compared at equal learning."""

import io
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import runs
import suites
from foci import models
from foci.bench import cells
from foci.bench.config import load_suite
from foci.bench.markdown import markdown, reached
from foci.bench.plots import along_the_change
from foci.bench.run import bench
from foci.cli.tables import print_suite
from foci.learn import run as learning
from foci.probes import Probe, answer, read_answers
from foci.report.words import NONE
from foci.slide import run as sliding
from foci.system.files import read_json, read_lines

LORA = {"type": "lora", "r": 4, "alpha": 8.0}


def silent() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    return suites.material(tmp_path_factory.mktemp("material"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learning, "write_report", lambda _, path: path.write_text("drawn"))
    monkeypatch.setattr("foci.bench.run.draw", lambda *_: [])


def suite(folder, stuff, **changes):
    return suites.suite(folder, *stuff, **{"slide": {"points": [0.5]}, **changes})


def asked(folder, share):
    return read_answers(folder / "slide" / "scale" / f"at-{share:.6f}.parquet")


def numbers(answers):
    return [(a.probe_id, a.nll, a.accuracy, a.predicted) for a in answers]


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
def test_the_ends_are_the_untouched_and_the_trained_model(stuff, tmp_path, adapter):
    """Bit for bit: at 0 every number of the frozen baseline, at 1 every number of the model that the cell saved."""
    one = suite(tmp_path, stuff, seeds=[1], arms={"plain": []}, adapter=adapter, keep_models=True)
    bench(one, console=silent())
    cell = one.output / "cells" / "plain" / "seed-1"
    assert (cell / "adapter").exists() is (adapter is not None)
    assert numbers(asked(cell, 0)) == numbers(read_answers(cell / "baseline" / "probes.parquet"))
    loaded = models.load(str(cell / "model"))
    probes = [Probe(**{**line, "aliases": tuple(line["aliases"])}) for line in read_lines(cell / "probes.jsonl")]
    assert numbers(asked(cell, 1)) == numbers(answer(loaded.model, loaded.tokenizer, probes))
    assert numbers(asked(cell, 0.5)) not in (numbers(asked(cell, 0)), numbers(asked(cell, 1)))


def brute(points, best, given, least):
    """Returns the share with the largest `best` on a fine grid of straight lines, found in a way of its own."""
    at, grid = [p["at"] for p in points], np.linspace(0, 1, 40001)
    limited, wanted = (np.interp(grid, at, [p[name] for p in points]) for name in (given, best))
    return grid[np.where(limited >= least - 1e-9, wanted, -np.inf).argmax()]


def share_of(cell, at):
    """The means at one share, of the answers as they stand in the cell's tables."""
    table = asked(cell, at)
    texts = next(line for line in read_lines(cell / "slide/scale/points.jsonl") if line["at"] == at)

    def mean(role, held, name):
        return np.mean([getattr(a, name) for a in table if (a.role, a.held_out, a.counted) == (role, held, True)])

    return {
        "at": at,
        "held learned": mean("learn", True, "accuracy"),
        "held retained": mean("retain", True, "accuracy"),
        "held minus nll": -mean("learn", True, "nll"),
        "minus bits": -texts["bits_per_byte"],
        "right": mean("learn", False, "correct"),
        "nll": mean("learn", False, "nll"),
    }


def test_the_table_is_of_the_curves_chosen_on_held_out_probes(stuff, tmp_path):
    one = suite(tmp_path, stuff, slide={"points": [0.25, 0.5, 0.75], "keep": 0.6}, train={"learning_rate": 0.05})
    found = bench(one, console=silent())
    told, shares = found["slide"]["arms"], found["slide"]["points"]
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0]
    for arm in one.arms:
        for n, seed in enumerate(one.seeds):
            points = [share_of(one.output / "cells" / arm / f"seed-{seed}", at) for at in shares]
            share = brute(points, "held learned", "held retained", 0.6)
            assert told[arm]["learned_at_kept"]["shares"][n] == pytest.approx(share, abs=1e-4)
            right = np.interp(share, shares, [p["right"] for p in points])
            assert told[arm]["learned_at_kept"]["values"][n] == pytest.approx(right, abs=1e-4)
            share = brute(points, "held minus nll", "minus bits", 1.01 * points[0]["minus bits"])
            nll = np.interp(share, shares, [p["nll"] for p in points])
            assert told[arm]["nll_at_prose"]["values"][n] == pytest.approx(nll, abs=1e-3)
    pairs = [told[arm]["nll_at_prose"]["values"] for arm in ("oracle", "plain")]
    paired = stats.ttest_rel(*pairs).confidence_interval()
    assert told["oracle"]["nll_at_prose"]["difference"]["low"] == pytest.approx(paired.low)
    assert told["oracle"]["nll_at_prose"]["difference"]["high"] == pytest.approx(paired.high)
    assert told["plain"]["nll_at_prose"]["difference"] is None
    text = markdown(found)
    assert "| arm | learned at 60 % kept, % | learned at 60 % kept, %: from plain |" in text
    assert "NLL at 1.01 x bits per byte, nats: from plain" in text
    for width in (80, 120):
        shown = Console(file=io.StringIO(), width=width)
        print_suite(found, shown)
        assert "learned at 60 %  tokens at 60 %" in shown.file.getvalue()
        assert "…" not in shown.file.getvalue()
    for tokens in (False, True):
        lines = along_the_change(found, tokens=tokens).axes[0].get_lines()[:2]
        assert [line.get_label() for line in lines] == ["plain", "oracle"]
        assert [len(line.get_xdata()) for line in lines] == [5, 5]


def test_spans_are_compared_by_nll(stuff, tmp_path):
    """The terminal shows what fits the probes; both axes of the figure fall, so that up and right is better."""
    things, held_out = stuff
    spans = [{**line, "kind": "span", "suffix": ""} for line in runs.questions()[:6]]
    own = runs.write_lines(tmp_path / "spans.jsonl", spans)
    found = bench(
        suite(tmp_path, (things, held_out), probes={"learn": str(own), "held_out": None}, seeds=[0]), console=silent()
    )
    assert found["slide"]["by"] == "nll"
    shown = Console(file=io.StringIO(), width=80)
    print_suite(found, shown)
    assert "NLL at 1.01 x" in shown.file.getvalue()
    axes = along_the_change(found).axes[0]
    assert axes.xaxis_inverted()
    assert axes.yaxis_inverted()
    assert "half of the facts, drawn by the seed" in markdown(found)
    assert along_the_change(found, tokens=True) is None


def test_without_a_baseline_there_is_nothing_to_be_equal_to(stuff, tmp_path):
    found = bench(suite(tmp_path, stuff, arms={"oracle": ["oracle"]}, seeds=[0]), console=silent())
    shown = Console(file=io.StringIO(), width=80)
    print_suite(found, shown)
    assert "learned at 95 %" in shown.file.getvalue()
    assert "kept at plain's" not in shown.file.getvalue()
    assert "None" not in shown.file.getvalue() + markdown(found)


def test_a_killed_suite_asks_no_share_twice(stuff, tmp_path):
    file = suites.suite_file(tmp_path, *stuff, slide={"points": [0.25, 0.5]}, seeds=[0])
    moment = ("foci.slide.folder.append_line", 7, signal.SIGKILL)  # plain's four shares, and the third of oracle
    runs.finished(["bench", file], tmp_path, code=-signal.SIGKILL, moment=moment)
    points = tmp_path / "out/cells/oracle/seed-0/slide/scale/points.jsonl"
    assert [line["at"] for line in read_lines(points)] == [0, 0.25]
    console = silent()
    found = bench(load_suite(file), console=console)
    assert "oracle   50% of the change asked" in (said := console.file.getvalue())
    assert "25% of the change asked" not in said
    assert [line["at"] for line in read_lines(points)] == [0, 0.25, 0.5, 1]
    assert not (points.parents[2] / "model").exists()
    whole = bench(load_suite(file, ["output=whole"]), console=silent())
    assert suites.lasting(found) == suites.lasting(whole)


def test_cells_without_a_model_are_told_and_models_that_were_kept_are_asked(stuff, tmp_path, monkeypatch):
    shared = {"seeds": [0], "arms": {"plain": []}}
    bench(suite(tmp_path, stuff, **shared, slide=None), console=silent())
    with monkeypatch.context() as patched:
        patched.setattr(cells, "learn", None)
        with pytest.raises(FileExistsError, match=r"plain, seed 0 .* no questions at .*: 0, 0.5, 1 .*--overwrite"):
            bench(suite(tmp_path, stuff, **shared), console=silent())
    assert bench(suite(tmp_path, stuff, **shared), overwrite=True, console=silent())["slide"]["arms"]["plain"]
    bench(suite(tmp_path, stuff, **shared, slide=None, output="kept", keep_models=True), console=silent())
    monkeypatch.setattr("foci.learn.arm.Arm._train", None)  # nothing is trained again
    kept = suite(tmp_path, stuff, **shared, output="kept", keep_models=True)
    found = bench(kept, console=silent())
    assert found["slide"]["arms"]["plain"]["curve"][1]["learned_nll"]["n"] == 1
    monkeypatch.setattr(sliding.Sliding, "ask", None)  # and nothing asked again
    assert bench(kept, console=silent()) == found


def test_an_arm_whose_model_could_not_be_written_has_no_numbers(stuff, tmp_path, monkeypatch):
    def lost(run, **settings):
        learning.learn(run, **settings)
        shutil.rmtree(run.output / "model")

    monkeypatch.setattr(cells, "learn", lost)
    one = suite(tmp_path, stuff, seeds=[0], arms={"plain": []})
    told = bench(one, console=silent())["slide"]["arms"]["plain"]["learned_at_kept"]
    assert (told["values"], told["not_reached"]) == ([None], [])
    assert "why_not" in read_json(Path("out/cells/plain/seed-0/slide/scale/made.json"))
    monkeypatch.setattr(cells, "learn", None)
    bench(one, console=silent())


def test_how_a_number_that_some_seeds_have_not_is_written():
    assert reached("31.0", {"values": [0.3, 0.32], "not_reached": []}) == "31.0"
    assert reached("31.0", {"values": [0.31, None], "not_reached": [1]}) == "31.0 (1 of 2 seeds)"
    assert reached("31.0", {"values": [0.31, None], "not_reached": []}) == "31.0 (1 of 2 seeds)"
    assert reached(NONE, {"values": [None, None], "not_reached": [0, 1]}) == "not reached"
    assert reached(NONE, {"values": [None], "not_reached": []}) == NONE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slide": {"points": [0]}}, r"'slide\.points\.0' expected a number above 0, got 0"),
        ({"slide": {"points": [1.5]}}, r"'slide\.points\.0' expected a number of at most 1, got 1\.5"),
        ({"slide": {"points": [0.5, 0.5]}}, "every value stands once, got 0.5 twice"),
        ({"slide": {"how": "prun"}}, "did you mean 'prune'"),
        ({"slide": {"by": "spans"}}, "'slide.by' expected 'answers' or 'nll', got 'spans'"),
        ({"slide": {"step": 3}}, "unknown key 'slide.step'"),
        ({"slide": {"prose": 0.9}}, "expected a number of at least 1, got 0.9"),
        ({"probes": {"learn": None}}, "it needs probes.learn, and probes.retain or probes.text"),
        ({"probes": {"retain": None, "text": None}}, "it needs probes.learn, and probes.retain or probes.text"),
    ],
)
def test_a_wrong_slider_is_told(stuff, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        suite(tmp_path, stuff, **change)


def test_check_takes_a_suite_and_out_names_its_folder(stuff, tmp_path, capsys):
    file = suites.suite_file(tmp_path, *stuff, slide={"points": [0.5]})
    said = " ".join(runs.told(["check", file], capsys).split())
    assert "of 18 times" in said  # 2 seeds x (1 + 2 arms x (2 probings + 2 shares))
    assert "2 seeds" in said
    assert not Path("out").exists()
    runs.told(["bench", file, "seeds=[0]", "slide=null", "--out", tmp_path / "there"], capsys)
    assert (tmp_path / "there" / "table.md").is_file()
