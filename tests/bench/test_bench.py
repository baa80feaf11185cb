"""Suites, from the file to the table: tiny models, the whole way."""

import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats

import runs
import suites
from foci.bench import cells, workers
from foci.bench.config import cell_run, load_suite
from foci.bench.points import points
from foci.bench.run import bench
from foci.config.adapter import Adapter
from foci.config.run import Run, dump_run, load_run
from foci.learn import baseline
from foci.learn import run as learning
from foci.learn.offline import plan_of
from foci.learn.run import learn
from foci.probes import read_answers
from foci.system.files import read_json
from foci.system.run_folder import ArmFolder
from paths import ROOT


def silent() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    return suites.material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def done(stuff, tmp_path_factory):
    """(the suite, its table): two arms, two seeds, finished. Its folder is `out` of the current directory."""
    folder = tmp_path_factory.mktemp("done")
    suite = suites.suite(folder, *stuff)
    with contextlib.chdir(folder):
        found = bench(suite, console=silent())
    return suite, found, folder


@pytest.fixture(autouse=True)
def here(done, tmp_path, monkeypatch):
    """Every test works beside a copy of the finished suite; pages and figures are drawn only for `done`."""
    shutil.copytree(done[2] / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learning, "write_report", lambda _, path: path.write_text("drawn"))
    monkeypatch.setattr("foci.bench.run.draw", lambda *_: [])


def never(*_, **__):
    raise AssertionError("a cell was run")


# ---- the suite file ----


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [1, 2, 1]}, "every value stands once, got 1 twice"),
        ({"seeds": []}, "at least one"),
        ({"seeds": 7}, r"expected a list of numbers, got 7; write \[7\]"),
        ({"slide": {"points": "0.5,1"}}, r"got '0.5,1'; write a list such as \[1, 0.5\]"),
        ({"slide": {"points": 0.5}}, r"'slide.points': expected a list of numbers, got 0.5; write \[0.5\]"),
        ({"match": "step"}, "did you mean 'steps'"),
        ({"seed": 3}, r"write seeds: \[3\]"),
        ({"overrides": {"orakle": {}}}, "did you mean 'oracle'"),
        ({"overrides": {"oracle": {"learningrate": 0.1}}}, "did you mean 'train.learning_rate'"),
        ({"overrides": {"oracle": {"learning_rate": -1}}}, r"train\.learning_rate: .*greater than 0, got -1"),
        ({"overrides": {"oracle": {"epochs": 2}}}, "all arms are matched"),
        ({"overrides": {"oracle": {"adapter": "osf"}}}, r"settings, such as \{type: osf\}, or null, got 'osf'"),
        ({"overrides": {"oracle": {"adapter": {"typ": "osf"}}}}, "did you mean 'adapter.type'"),
        ({"overrides": {"oracle": {"adapter": {"type": "osf", "r": 4}}}}, r"adapter: osf reads no settings.*r 4"),
        (
            {"model": {"bits": 4}, "overrides": {"oracle": {"adapter": None}}},
            "arm oracle, with its settings in overrides: model.bits: 4 freezes .* got adapter: null",
        ),
        ({"overrides": {"oracle": {"adapter": {"r": 0}}}}, r"adapter\.r: .*greater than or equal to 1"),
        ({"sedes": [1]}, "did you mean 'seeds'"),
        ({"train": {"patience": 2}}, "after the same number of steps, got train.patience 2 .*leave it out"),
        ({"overrides": {"oracle": {"patience": 1}}}, r"got train.patience 1 \(arm oracle\)"),
    ],
)
def test_a_wrong_suite_file_is_told(stuff, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        suites.suite(tmp_path, *stuff, **change)


def test_a_suite_reads_back_from_its_resolved_file(done):
    suite = done[0]
    assert load_suite(suite.output / "suite.yaml") == suite
    assert load_suite(suite.output / "suite.yaml", ["seeds=[7]"]).seeds == (7,)


def test_a_run_file_is_still_no_suite(stuff, tmp_path):
    with pytest.raises(ValueError, match="unknown key 'seeds'"):
        load_run(suites.suite_file(tmp_path, *stuff))


def test_an_arms_own_settings_are_its_own(stuff, tmp_path):
    suite = suites.suite(tmp_path, *stuff, overrides={"oracle": {"learning_rate": 0.5}})
    rates = [cell_run(suite, arm, 0, 4, tmp_path).train.learning_rate for arm in suite.arms]
    assert rates == [0.02, 0.5]


def test_an_arm_may_have_an_adapter_of_its_own(stuff, tmp_path):
    """Of the suite's type it keeps what it does not set; of another one it begins from the defaults."""
    own = {"plain": {"adapter": {"r": 2}}, "oracle": {"adapter": {"type": "osf"}, "learning_rate": 0.5}}
    suite = suites.suite(tmp_path, *stuff, overrides=own, adapter={"type": "lora", "r": 4, "alpha": 6.0})
    plain, oracle = (cell_run(suite, arm, 0, 4, tmp_path) for arm in suite.arms)
    assert plain.adapter == Adapter(r=2, alpha=6.0)
    assert oracle.adapter == Adapter(type="osf")
    assert (plain.train.learning_rate, oracle.train.learning_rate) == (0.02, 0.5)
    free = suites.suite(tmp_path, *stuff, overrides={"oracle": {"adapter": None}})
    assert [cell_run(free, arm, 0, 4, tmp_path).adapter is None for arm in free.arms] == [free.adapter is None, True]
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_run(suite))
    assert load_suite(resolved) == suite


# ---- a finished suite ----


def test_a_cell_is_the_run_of_foci_learn(done, stuff, tmp_path):
    """The same run without the suite's shared start ends with the same weights, answers and summary."""
    suite = done[0]
    cell = suite.output / "cells" / "oracle" / "seed-1"
    run = load_run(cell).model_copy(update={"output": tmp_path / "alone"})
    learn(run, console=silent())
    here, there = (read_json(folder / "arm.json") for folder in (run.output, cell))
    assert set(here.pop("files")) == set(there.pop("files"))  # hashes of lines that hold seconds
    assert suites.lasting(here) == suites.lasting(there)
    assert here["weights_sha256"] == there["weights_sha256"]


def test_the_table_is_of_the_cells_answers(done):
    suite, table, _ = done
    found = {
        (arm, seed): [
            a
            for a in read_answers(suite.output / f"cells/{arm}/seed-{seed}/probes/step-000004.parquet")
            if a.role == "learn" and not a.held_out
        ]
        for arm in ("plain", "oracle")
        for seed in (0, 1)
    }
    nll = {key: sum(a.nll for a in answers) / len(answers) for key, answers in found.items()}
    told = table["arms"]["oracle"]["end"]["learned_nll"]
    assert told["values"] == pytest.approx([nll["oracle", 0], nll["oracle", 1]])
    paired = stats.ttest_rel(
        *([nll[arm, seed] for seed in (0, 1)] for arm in ("oracle", "plain"))
    ).confidence_interval()
    assert told["difference"]["low"] == pytest.approx(paired.low)
    assert told["difference"]["high"] == pytest.approx(paired.high)
    assert table["arms"]["plain"]["end"]["learned_nll"]["difference"] is None
    assert {len(answers) for answers in found.values()} == {8}


def test_held_out_probes_choose_and_do_not_count(done):
    suite, table, _ = done
    assert table["chosen_on"] == "held_out"
    assert table["questions"] == {
        "learn": 8, "retain": 3, "retain_asked": 4, "held_out_learn": 3, "held_out_retain": 2,
    }  # fmt: skip
    for arm in suite.arms:
        for n, seed in enumerate(suite.seeds):
            folder = ArmFolder(suite.output / "cells" / arm / f"seed-{seed}")
            path = points(folder)
            held = [(p["held_out_learned"] + p["held_out_retained"], -p["step"]) for p in path[1:]]
            assert table["arms"][arm]["chosen"]["step"]["values"][n] == -max(held)[1]
            summary = read_json(folder.path / "summary.json")["arms"][arm]
            assert summary["learn_probes"] == 8
            assert summary["learned"]["after"] == pytest.approx(path[-1]["learned"])
            assert [point["learned"] for point in summary["path"]] == [p["learned"] for p in path]


def test_controls_and_the_untouched_model_are_in_every_table(done):
    _, table, _ = done
    assert table["controls"]["majority"] == pytest.approx(2 / 8)  # six towns and two jobs, all different
    assert table["untouched"]["retained"] == 1.0
    text = (done[0].output / "table.md").read_text()
    for words in ("*untouched model*", "*always the majority answer*", "balanced, %", "(selected on the test)"):
        assert text.count(words) >= 2, words
    assert "the same number of updates" in text
    assert "Mean over 2 seeds (0, 1) with 95 % interval" in text


def test_every_column_of_a_table_has_its_own_head(done):
    lines = (done[0].output / "table.md").read_text().splitlines()
    heads = [line.strip("|").split("|") for line, below in pairwise(lines) if below.startswith("|") and "---" in below]
    assert len(heads) > 3
    assert all(len(set(names)) == len(names) for names in heads)


def test_figures_and_page_are_whole(done):
    folder = done[2] / "out"
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for link in re.findall(r'<a href="([^"]+)"', page):
        assert (folder / link).is_file()
    for name in ("learned_against_retained", "learned_over_updates"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (folder / f"{name}.svg").is_file()


def test_finished_cells_keep_no_model_unless_asked(done, stuff, tmp_path):
    cell = done[0].output / "cells" / "plain" / "seed-0"
    assert not (cell / "model").exists()
    assert not (cell / "checkpoints").exists()
    kept = suites.suite(tmp_path, *stuff, output="kept", keep_models=True, seeds=[0], arms={"plain": []})
    bench(kept, console=silent())
    assert (kept.output / "cells" / "plain" / "seed-0" / "model" / "config.json").is_file()


# ---- again ----


def test_finished_cells_are_never_run_again(done, monkeypatch):
    suite, table, _ = done
    before = Path("out/table.json").read_bytes()
    monkeypatch.setattr(cells, "learn", never)
    monkeypatch.setattr(baseline, "_write_start", never)
    console = silent()
    assert bench(suite, console=console) == json.loads(json.dumps(table))
    assert Path("out/table.json").read_bytes() == before
    assert "4 of 4 cells were finished before" in console.file.getvalue()


def test_more_seeds_and_arms_add_cells(stuff, tmp_path, monkeypatch):
    ran = []

    def counted(run: Run, **settings):
        ran.append(run.name)
        raise ArithmeticError("not today")

    monkeypatch.setattr(cells, "learn", counted)
    more = {"seeds": [0, 1, 9], "arms": {"plain": [], "oracle": ["oracle"], "half": [{"oracle": {"floor": 0.5}}]}}
    with pytest.raises(ValueError, match="5 of 9 cells failed"):
        bench(suites.suite(tmp_path, *stuff, **more), console=silent())
    assert ran == ["half seed 0", "half seed 1", "plain seed 9", "oracle seed 9", "half seed 9"]


def test_cells_of_other_settings_are_refused_before_anything_runs(stuff, tmp_path, monkeypatch):
    other = suites.suite(tmp_path, *stuff, seeds=[7, 1], arms={"plain": []}, train={"learning_rate": 0.5})
    with monkeypatch.context() as patched:
        patched.setattr(cells, "learn", never)
        with pytest.raises(FileExistsError, match=r"cell plain, seed 1 .* other settings .*--overwrite"):
            bench(other, console=silent())
    other = load_suite(tmp_path / "suite.yaml", ["seeds=[1]"])
    bench(other, overwrite=True, console=silent())
    assert load_run("out/cells/plain/seed-1").train.learning_rate == 0.5


def test_files_that_changed_are_refused(tmp_path, monkeypatch):
    things, held_out = suites.material(tmp_path / "own")
    settings = {"output": "new", "seeds": [0], "arms": {"plain": []}}
    suite = suites.suite(tmp_path, things, held_out, **settings)
    bench(suite, console=silent())
    things.corpus.write_text(things.corpus.read_text().replace("Bern", "Genf"))
    monkeypatch.setattr(cells, "learn", never)
    for _ in range(2):
        with pytest.raises(FileExistsError, match=r"another content of .*corpus\.jsonl"):
            bench(suite, console=silent())
    with pytest.raises(AssertionError, match="a cell was run"):
        bench(suite, overwrite=True, console=silent())


def test_a_folder_of_something_else_is_left_alone(stuff, tmp_path):
    suite = suites.suite(tmp_path, *stuff, output="mine")
    suite.output.mkdir()
    (suite.output / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no suite"):
        bench(suite, console=silent())
    assert [path.name for path in suite.output.iterdir()] == ["thesis.txt"]


def test_a_cell_that_fails_is_told_and_made_good_later(done, monkeypatch):
    shutil.rmtree("out/cells/oracle/seed-0")

    def broken(run: Run, **settings):
        raise ArithmeticError("the loss is nan at update 2")

    with monkeypatch.context() as patched:
        patched.setattr(cells, "learn", broken)
        with pytest.raises(ValueError, match=r"1 of 4 cells failed \(oracle, seed 0: the loss is nan"):
            bench(done[0], console=silent())
    table = read_json(Path("out/table.json"))
    assert table["arms"]["oracle"]["seeds"] == [1]
    assert table["arms"]["oracle"]["end"]["learned_nll"]["difference"]["n"] == 1
    assert table["failures"] == {"oracle, seed 0": "the loss is nan at update 2"}
    assert "Failed: oracle, seed 0" in Path("out/table.md").read_text()
    assert suites.lasting(bench(done[0], console=silent())) == suites.lasting(done[1])


# ---- kinds of suites ----


def test_without_seeds_and_held_out_probes_the_table_says_so(stuff, tmp_path, capsys):
    """One seed: no intervals. No held-out file: the end is reported. Through the command."""
    file = suites.suite_file(tmp_path, stuff[0], None, output="one")
    said = runs.told(["bench", file, "seeds=[5]"], capsys)
    assert "cell 1 of 2: plain, seed 5, 4 updates" in said
    assert "One seed, no intervals. No probes are held out" in said
    at = read_json(Path("one/table.json"))["arms"]["oracle"]["chosen"]
    assert (at["learned_nll"]["low"], at["learned_nll"]["difference"]["low"]) == (None, None)
    assert at["learned_nll"]["difference"]["mean"] != 0
    assert at["step"]["values"] == [4]
    text = Path("one/table.md").read_text()
    assert "One seed (5): no intervals" in text
    assert "each arm is reported at its end" in text
    assert "At the chosen point" not in text
    assert "(selected on the test)" in text
    assert "unknown key" in runs.refused(["bench", file, "sedes=[0]"], capsys)


def test_matched_by_steps_rehearsal_makes_as_many_updates_and_by_tokens_fewer(stuff, tmp_path):
    old = [{"text": "The north of France is a town by the sea. " * 2 + str(n)} for n in range(6)]
    replay = {"replay": {"path": str(runs.write_lines(tmp_path / "old.jsonl", old)), "ratio": 1.0}}
    shared = {"seeds": [0], "arms": {"plain": [], "replay": [replay]}, "train": {"steps": 9}, "probes": {"every": None}}
    steps, tokens = (
        bench(suites.suite(tmp_path, *stuff, output=match, match=match, **shared), console=silent())["arms"]
        for match in ("steps", "tokens")
    )

    def at_end(arms, arm, name):
        return arms[arm]["end"][name]["mean"]

    assert at_end(steps, "plain", "step") == at_end(steps, "replay", "step") == at_end(tokens, "plain", "step") == 9
    assert at_end(steps, "replay", "tokens") > 1.15 * at_end(steps, "plain", "tokens")
    assert at_end(tokens, "replay", "step") < 9
    assert at_end(tokens, "replay", "tokens") == pytest.approx(at_end(tokens, "plain", "tokens"), rel=0.1)
    assert "tokens read" in Path("tokens/table.md").read_text()
    matched = Path("tokens/matched/replay/seed-0/updates.json")
    known = json.loads(matched.read_text())
    assert "  batch_tokens: null\n" in known["run"]
    earlier = {**known, "run": known["run"].replace("  batch_tokens: null\n", "")}
    earlier.pop("seal")
    matched.write_text(json.dumps(earlier))
    before = matched.stat().st_mtime_ns
    bench(suites.suite(tmp_path, *stuff, output="tokens", match="tokens", **shared), console=silent())
    assert matched.stat().st_mtime_ns == before, "an earlier version's is not computed again"
    longer = shared | {"train": {"steps": 12}}
    with pytest.raises(FileExistsError, match=r"other settings .*--overwrite"):
        bench(suites.suite(tmp_path, *stuff, output="tokens", match="tokens", **longer), console=silent())
    assert json.loads(matched.read_text())["asked"] == 12
    matched.write_text(json.dumps({**known, "updates": known["updates"] + 1}))
    with pytest.raises(ValueError, match=r"updates.json is damaged: its content is not what was written"):
        bench(suites.suite(tmp_path, *stuff, output="tokens", match="tokens", **shared), console=silent())
    assert "seal" in json.loads(Path("tokens/table.json").read_text())


def test_the_file_of_the_earlier_methods_is_a_suite():
    path = ROOT / "runs" / "lama_ckl_earlier.yaml"
    suite = load_suite(path)
    assert suite.baseline == "plain"
    assert list(suite.arms) == [
        "plain", "third_rate", "tenth_rate", "mlp", "osf",
        "oracle", "rho", "replay", "self_replay", "rec_adam", "ewc",
    ]  # fmt: skip
    assert len(suite.seeds) == 3
    for arm in suite.arms:
        plan_of(suite, arm)


def test_a_cell_whose_process_ends_without_words_has_failed(done, tmp_path):
    run = cell_run(done[0], "plain", 0, 1, tmp_path / "seed-0")
    cell = cells.Cell("plain", 0, run, tmp_path)
    workers.error_file(cell).write_text(workers.said(MemoryError()))
    process = multiprocessing.Process(target=os._exit, args=(workers.FAILED,))
    process.start()
    process.join()
    assert workers._reason(cell, process) == "MemoryError"
    assert workers.said(ValueError("no rows")) == "no rows"
