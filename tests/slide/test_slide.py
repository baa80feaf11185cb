"""`foci slide` on runs of a tiny model: the curve, a model that is written, a second time, and what is refused."""

import re
import shutil
import signal

import pytest
import torch

import runs
from foci import models
from foci.config.run import load_run
from foci.learn.run import learn
from foci.models.adapters import peft_quiet
from foci.probes import Probe, answer, read_answers
from foci.report.read import read_run
from foci.slide.run import slide
from foci.system.files import read_json, read_lines
from foci.system.run_folder import RunFolder

TRAIN = {"epochs": None, "steps": 6, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def trained(things, tmp_path_factory):
    """The folder of a finished run with two arms; nobody writes into it."""
    folder = tmp_path_factory.mktemp("trained")
    learn(load_run(runs.run_file(folder, things, train=TRAIN, probes={"every": None})))
    return folder / "out"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def weights(folder):
    return {name: p.detach() for name, p in models.load(str(folder)).model.named_parameters()}


def test_the_curve_goes_from_the_untouched_model_to_the_trained_one(run, capsys):
    told = runs.told(["slide", run, "--points", "2"], capsys)
    found = read_json(run / "slide.json")
    assert all(len(line) <= 80 for line in told.splitlines() if "report:" not in line and " asked in" not in line)
    for name, arm in found["arms"].items():
        assert [point["at"] for point in arm["points"]] == [0.0, 0.5, 1.0]
        own = RunFolder(run, 2).arm(name)
        table = own.path / "slide" / "scale"
        start = read_answers(run / "baseline" / "probes.parquet")
        assert [(a.probe_id, a.nll) for a in read_answers(table / "at-0.000000.parquet")] == [
            (a.probe_id, a.nll) for a in start
        ]
        loaded = models.load(str(own.model))
        asked = [Probe(**{**line, "aliases": tuple(line["aliases"])}) for line in read_lines(run / "probes.jsonl")]
        said = answer(loaded.model, loaded.tokenizer, asked)
        assert [(a.probe_id, a.nll) for a in read_answers(table / "at-1.000000.parquet")] == [
            (a.probe_id, a.nll) for a in said
        ]
        assert re.search(rf"  {name}  100% of the change asked in \d+ s", told)
    assert "95 % kept, %" in told
    assert "kept at plain's" in told
    page = (run / "report.html").read_text()
    assert "Along the change" in page
    for name in found["arms"]:  # every arm is drawn, at every share
        assert all(f"{name} · {share} % of the change" in page for share in (0, 50, 100))
    file = run / "slide.json"
    file.write_text((whole := file.read_text()).replace("0.5", "0.6"))
    said = read_run(run)
    assert not said.slide
    assert "slide.json cannot be read" in " ".join(said.notices)
    file.write_text(whole)


def test_a_second_time_asks_nothing_again_and_more_points_ask_only_those(run, capsys, monkeypatch):
    first = slide(run, points=2)
    lines = read_lines(run / "arms" / "plain" / "slide" / "scale" / "points.jsonl")
    assert slide(run, points=2) == first
    assert "plain  asked before" in capsys.readouterr().out
    slide(run, points=4)
    assert read_lines(run / "arms" / "plain" / "slide" / "scale" / "points.jsonl")[: len(lines)] == lines
    assert sorted(line["at"] for line in read_lines(run / "arms/plain/slide/scale/points.jsonl")) == [
        0,
        0.25,
        0.5,
        0.75,
        1,
    ]


def test_a_model_is_written_where_enough_is_kept(run, things, capsys):
    told = runs.told(["slide", run, "--points", "2", "--keep", "0.9"], capsys)
    found = read_json(run / "slide.json")
    for name, written in found["written"].items():
        own = RunFolder(run, 2).arm(name)
        point = next(p for p in found["arms"][name]["points"] if p["at"] == written["at"])
        assert point["held_out_retained"] >= 0.9
        start, end, made = (weights(folder) for folder in (things.model, own.model, written["model"]))
        for key in made:
            torch.testing.assert_close(made[key], start[key] + written["at"] * (end[key] - start[key]))
        with peft_quiet():
            scaled = weights(written["adapter"])
        for key in made:
            torch.testing.assert_close(scaled[key], made[key], atol=1e-4, rtol=1e-4)
    assert "read back: the same bits" in told


def test_pruning_keeps_a_share_of_the_entries_and_has_no_adapter(run):
    found = slide(run, how="prune", points=2, keep=0.5)
    written = found["written"]["plain"]
    assert written["adapter"] is None
    own = RunFolder(run, 2).arm("plain")
    assert (own.path / "slide" / "prune" / "at-0.500000.parquet").is_file()
    assert not (own.path / "slide" / "scale").exists()


def test_the_models_own_code_is_trusted_where_the_run_trusts_it(things, tmp_path, monkeypatch):
    """It is read back before it takes its place."""
    own, asked, trust = models.load, [], {"name": str(things.model), "dtype": "float32", "trust_remote_code": True}
    learn(load_run(runs.run_file(tmp_path, things, model=trust, train=TRAIN, probes={"every": None})))
    run = tmp_path / "out"
    place = RunFolder(run, 2).arm("plain").path / "slide" / "keep-0.5" / "model"

    def load(name, **settings):
        asked.append((str(place.parent) in name, settings.get("trust_remote_code"), place.exists()))
        return own(name, **settings)

    monkeypatch.setattr(models, "load", load)
    slide(run, points=2, keep=0.5)
    assert (True, True, False) in asked
    assert all(trusted for written, trusted, _ in asked if written)


def test_a_model_without_an_adapter_has_none_of_an_earlier_one_beside_it(run):
    scaled = slide(run, points=2, keep=0.5)["written"]["plain"]
    place = RunFolder(run, 2).arm("plain").path / "slide" / "keep-0.5"
    assert scaled["adapter"] == str(place / "adapter")
    assert slide(run, how="prune", points=2, keep=0.5)["written"]["plain"]["adapter"] is None
    assert sorted(file.name for file in place.iterdir()) == ["model"]


def test_where_no_fact_can_choose_no_model_is_written(things, trained, tmp_path, capsys):
    answers = read_answers(trained / "baseline" / "probes.parquet")
    known = {a.probe_id for a in answers if a.role == "retain" and a.counted}
    prompts = {line["prompt"] for line in read_lines(trained / "probes.jsonl") if line["id"] in known}
    one = next(line for line in read_lines(things.retain) if line["prompt"] in prompts)
    asked = runs.write_lines(tmp_path / "one.jsonl", [one])
    learn(load_run(runs.run_file(tmp_path, things, train=TRAIN, probes={"every": None, "retain": str(asked)})))
    words = runs.refused(["slide", tmp_path / "out", "--points", "1", "--keep", "0.9"], capsys)
    assert "asks 1 fact to retain that count, so none are held out to choose" in words
    assert not list((tmp_path / "out").glob("arms/*/slide"))


def test_a_killed_slide_goes_on(run, tmp_path):
    runs.finished(
        ["slide", run, "--points", "2"],
        tmp_path,
        code=-signal.SIGKILL,
        moment=("foci.slide.folder.append_line", 2, signal.SIGKILL),
    )
    known = read_lines(run / "arms" / "plain" / "slide" / "scale" / "points.jsonl")
    assert [line["at"] for line in known] == [0]
    assert len(slide(run, points=2)["arms"]["oracle"]["points"]) == 3


def test_what_cannot_be_slid_is_refused_by_name(run, things, tmp_path, capsys):
    assert "is not in" in runs.refused(["slide", tmp_path / "nowhere"], capsys)
    assert "there is no run.yaml in it" in runs.refused(["slide", tmp_path], capsys)
    assert "--keep above 0 and at most 1, got 5 and 1.5" in runs.refused(["slide", run, "--keep", "1.5"], capsys)
    weights = run / "arms" / "oracle" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert f"{weights} are not those that the run wrote" in runs.refused(["slide", run, "--points", "7"], capsys)
    shutil.rmtree(run / "arms" / "oracle" / "model")
    assert "arm oracle of" in (words := runs.refused(["slide", run], capsys))
    assert "has no saved model" in words
    (run / "arms" / "plain" / "arm.json").unlink()
    assert "arm plain of" in (words := runs.refused(["slide", run], capsys))
    assert "is not finished; go on with: foci learn" in words
