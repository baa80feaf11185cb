"""The benchmarks keep to their time, name every rival that is missing, and go on where one of them fails."""

import importlib
import importlib.util
import inspect
import json
import time

import pytest
import torch

from paths import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is not beside the tests")


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def module(name):
    return importlib.import_module(f"benchmarks.{name}")


def busy(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_every_benchmark_has_its_seconds_and_takes_an_allowance():
    main = module("__main__")
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    shared = {"__init__", "__main__", "machine", "side_by_side", "table", "training"}
    assert files == set(main.SECONDS) | shared
    assert sum(main.SECONDS.values()) <= 60 * main.MINUTES <= 15 * 60
    assert main.GPU_MINUTES <= 10
    for name in main.SECONDS:
        assert list(inspect.signature(module(name).run).parameters) == ["allowed"], name


def test_turns_end_with_the_time_and_are_the_same_for_all_sides():
    allowed = module("side_by_side").Allowance(0.5)
    calls = {"a": 0, "b": 0}

    def call(side):
        calls[side] += 1
        time.sleep(0.05)

    spent = module("side_by_side").in_turns({s: lambda s=s: call(s) for s in calls}, 100, allowed)
    assert calls["a"] == calls["b"] == len(spent["a"]) + 1
    assert 2 <= len(spent["a"]) <= 4  # turns of a tenth of a second, the first not counted


def test_without_time_there_is_one_turn_and_with_time_no_more_than_most():
    side_by_side = module("side_by_side")
    for seconds, turns in ((0.0, 1), (60.0, 3)):
        spent = side_by_side.in_turns({"a": lambda: None, "b": lambda: None}, 3, side_by_side.Allowance(seconds))
        assert [len(pieces) for pieces in spent.values()] == [turns, turns]


def test_the_goal_is_about_processor_seconds_on_a_cpu(monkeypatch):
    """A side that waits takes no processor seconds; on a GPU, where the processor waits, the clock counts."""
    side_by_side = module("side_by_side")
    spent = side_by_side.in_turns(
        {"waits": lambda: time.sleep(0.1), "works": lambda: busy(0.1)}, 2, side_by_side.Allowance(5)
    )
    result = side_by_side.Result.timed("x", spent["waits"], spent["works"], rival="y", goal=0.5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert result.met
    assert result.as_json()["judged"] == "processor"
    assert result.as_json()["processor"]["ratio"]["median"] < 0.2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert result.as_json()["judged"] == "found"


def test_trainers_stop_with_the_time():
    training, side_by_side, step = module("training"), module("side_by_side"), module("step")
    setting = training.tiny(2, 16)
    rows = setting.rows(20)
    makers = {"foci": step.ours(rows), "rival": step.theirs(rows)}
    spent, losses = training.timed_steps(setting, makers, side_by_side.Allowance(0.0).turns(9), per_turn=2)
    assert len(spent["foci"]) == len(spent["rival"]) == 1
    assert losses["foci"] == losses["rival"]
    assert len(losses["foci"]) == 4  # one turn of two updates after the warm-up


def test_a_benchmark_that_fails_is_told_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    main, side_by_side = module("__main__"), module("side_by_side")

    def fails(allowed):
        raise RuntimeError("no | luck")

    monkeypatch.setattr(module("padding"), "run", fails)
    monkeypatch.setattr(
        module("documents"),
        "run",
        lambda allowed: [side_by_side.Result.of("y", "MiB", [1.0], [4.0], rival="z", goal=0.5)],
    )
    monkeypatch.setattr(main, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr("sys.argv", ["benchmarks", "padding", "documents"])
    assert main.main() == 1
    said = capsys.readouterr().out
    assert "| padding | | | | | **failed**: RuntimeError: no \\| luck | | |" in said
    assert "| y | z | 1 | 4 | MiB | 0.250 (one turn) | <= 0.5: met |  |" in said
    kept = json.loads((tmp_path / "results.json").read_text())
    assert list(kept) == ["padding", "documents"]
    needed = {
        "date",
        "seconds",
        "seconds_allowed",
        "processor_seconds",
        "load_before",
        "load_after",
        "machine",
        "versions",
    }
    assert needed <= set(kept["documents"])
    assert {"torch", "transformers"} <= set(kept["documents"]["versions"])


def test_a_rival_that_is_missing_is_named(monkeypatch):
    sft, side_by_side, table = module("sft"), module("side_by_side"), module("table")
    find = sft.importlib.util.find_spec
    monkeypatch.setattr(sft.importlib.util, "find_spec", lambda name: None if name == "trl" else find(name))
    monkeypatch.setattr(sft.machine, "free_bytes", lambda device: 2**40)
    updates = sft.Updates("x", side_by_side.Spent(1.0, 1.0), 100.0)
    monkeypatch.setattr(sft, "fresh", lambda side, batch, length: updates)
    found = [
        *sft.short_rows(module("training").tiny(2, 16), side_by_side.Allowance(0.0)),
        *sft.long_rows(2, 16, side_by_side.Allowance(0.0)),
    ]
    rows = table.table({"sft": {"results": [result.as_json() for result in found]}}).splitlines()[2:]
    assert sum("transformers.Trainer" in row and "one turn" in row for row in rows) == 3
    missing = [row for row in rows if "TRL" in row]
    assert len(missing) == 3
    assert all("not installed: pip install 'foci[bench]'" in row and "not measured" in row for row in missing)


def test_a_rival_without_memory_is_named(monkeypatch):
    sft = module("sft")
    monkeypatch.setattr(sft.machine, "free_bytes", lambda device: 11 * 2**30)
    assert [sft.unable(side) for side in sft.SIDES[:2]] == ["", ""]
    assert sft.unable(sft.TRL) == "not measured: takes up to 12 GiB of memory, 11 are free"


def test_without_a_gpu_it_says_so_and_writes_nothing(monkeypatch, tmp_path, capsys):
    main = module("__main__")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--gpu", str(tmp_path / "out")])
    assert main.main() == 2
    assert "There is no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_on_a_gpu_a_folder_gets_results_and_a_table(monkeypatch, tmp_path):
    """What concerns the CPU alone is named as left out."""
    main, side_by_side = module("__main__"), module("side_by_side")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(main, "described", lambda: {"machine": {}, "versions": {}})
    made = [side_by_side.Result.of("y", "MiB", [1.0], [4.0], rival="z")]
    seconds = []
    for name in main.SECONDS:
        monkeypatch.setattr(module(name), "run", lambda allowed: seconds.append(allowed.seconds) or made)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--gpu", str(tmp_path / "out")])
    assert main.main() == 0
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(kept) == set(main.SECONDS) - set(main.CPU_ONLY)
    told = (tmp_path / "out" / "table.md").read_text()
    assert told.count("| y |") == len(kept)
    assert all(f"{name} (" in told for name in main.CPU_ONLY)
    assert sum(seconds[:1]) < 10 * 60 * 0.2
    assert seconds[-1] > seconds[0]  # what the others did not need


def speed():
    spec = importlib.util.spec_from_file_location("tools_speed", ROOT / "tools" / "speed.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_and_the_picture_are_those_of_the_results(tmp_path):
    tool = speed()
    assert tool.page() == tool.PAGE.read_text(encoding="utf-8"), "run: python tools/speed.py"
    curves = tool.curves()
    assert set(curves) == set(tool.PANELS)
    for results in curves.values():
        assert [result["unit"] for result in results] == ["s", "MiB"]
        for curve in (result["curve"] for result in results):
            assert len(curve["sizes"]) == len(curve["foci"]) == len(curve["rival"]) >= 4
    tool.draw(tmp_path / "growth.svg")
    drawn = (tmp_path / "growth.svg").read_text(encoding="utf-8")
    kept = tool.PICTURE.read_text(encoding="utf-8")
    for name in ("rows of an update", "vocabulary", "probes", "time, processor s", "memory of tensors, MiB"):
        assert name in drawn
        assert name in kept


def test_the_page_names_what_was_not_measured(monkeypatch):
    tool = speed()
    everything = tool.found()
    monkeypatch.setattr(tool, "found", lambda: {name: made for name, made in everything.items() if name != "sft"})
    assert " sft" in tool.page().split("Not measured yet:")[1].split("\n")[0]


def test_unknown_names_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "leen"])
    with pytest.raises(SystemExit) as ended:
        module("__main__").main()
    assert ended.value.code == 2
    assert "there is no benchmark leen; choose from step, lean" in capsys.readouterr().err
