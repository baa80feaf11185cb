"""Files of a run that are damaged or changed between a stop and a resume: refused, or told and made again."""

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import runs
from foci.learn import records
from foci.report.read import read_run
from foci.system.files import read_json, seal_of, write_json
from foci.system.run_folder import RUN, ArmFolder


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, things):
    """The folder of a run of one arm that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    runs.finished(["learn", runs.run_file(folder, things, arms={"plain": []})], folder)
    return folder / "out"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, things):
    """(folder, run file) of a run that was killed after update 7; its last checkpoint is of update 6."""
    folder = tmp_path_factory.mktemp("stopped")
    file = runs.run_file(folder, things, arms={"plain": []})
    moment = ("foci.learn.callbacks.append_line", 8, signal.SIGKILL)
    runs.finished(["learn", file], folder, code=-signal.SIGKILL, moment=moment)
    return folder, file


def copied(stopped, tmp_path: Path) -> Path:
    """The output of a copy of the stopped run; its settings name the copy."""
    folder, _ = stopped
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    config = out / "run.yaml"
    config.write_text(config.read_text().replace(str(folder / "out"), str(out)))
    return out


def flipped(path: Path, rng: random.Random) -> None:
    """Changes one digit of a file to another: what a reader would not notice."""
    raw = bytearray(path.read_bytes())
    at = rng.choice([n for n, byte in enumerate(raw) if chr(byte).isdigit()] or range(len(raw)))
    raw[at] = ord("1") if raw[at] != ord("1") else ord("2")
    path.write_bytes(raw)


OF_START = ("start.json", "rows.parquet", "corpus.json", "probes.jsonl", "text.txt", "baseline/probes.parquet")


@pytest.mark.parametrize("name", OF_START)
def test_a_damaged_file_of_the_start_is_refused(stopped, tmp_path, capsys, name):
    out = copied(stopped, tmp_path)
    flipped(out / name, random.Random(name))
    words = runs.refused(["learn", out, "--resume"], capsys)
    assert f"{out / name} is damaged" in words
    assert "put the whole file back" in words
    shutil.copy(stopped[0] / "out" / name, out / name)


def test_a_setting_that_was_changed_is_refused(stopped, tmp_path, capsys):
    out = copied(stopped, tmp_path)
    text = (out / "run.yaml").read_text()
    (out / "run.yaml").write_text(text.replace("learning_rate: 0.02", "learning_rate: 0.03"))
    words = runs.refused(["learn", out, "--resume"], capsys)
    assert "is not as it was when this run began: train.learning_rate was changed" in words


def test_a_run_goes_on_whether_its_model_is_shared_out_or_not(stopped, whole, tmp_path, capsys):
    out = copied(stopped, tmp_path)
    text = (out / "run.yaml").read_text()
    (out / "run.yaml").write_text(text.replace("fsdp: false", "fsdp: true"))
    assert "train.fsdp has no effect" in runs.told(["learn", out, "--resume"], capsys)
    assert outcome_of(out) == outcome_of(whole)


def test_a_run_of_an_earlier_version_goes_on(stopped, whole, tmp_path, capsys):
    """Its files know neither the keys of today's settings, nor hashes, nor seals."""
    out = copied(stopped, tmp_path)
    text = (out / "run.yaml").read_text()
    earlier = RUN.known(text)
    assert len(text.splitlines()) == len(earlier.splitlines()) + len(RUN.later) + len(RUN.free)
    (out / "run.yaml").write_text(earlier)
    start = read_json(out / "start.json")
    for key in (*(line.partition(":")[0] for line in RUN.later), *RUN.free):
        section, _, name = key.partition(".")
        assert start["settings"][section].pop(name) in (None, False)
    write_json(out / "start.json", start, sealed=True)
    runs.told(["learn", out, "--resume"], capsys)
    assert outcome_of(out) == outcome_of(whole)
    for name in ("start.json", "arm.json", "summary.json"):
        value = read_json(out / name)
        write_json(out / name, {key: kept for key, kept in value.items() if key not in ("settings", "files")})
    (out / "run.yaml").write_text(earlier)
    runs.told(["learn", out, "--resume"], capsys)
    assert outcome_of(out) == outcome_of(whole)


def test_a_damaged_file_of_an_arm_is_told_and_made_again(stopped, whole, tmp_path, capsys):
    out, rng = copied(stopped, tmp_path), random.Random(5)
    flipped(out / "probes" / "text.jsonl", rng)
    said = runs.told(["learn", out, "--resume"], capsys)
    assert "skipped checkpoint step-6: probes/text.jsonl is damaged" in said
    assert outcome_of(out) == outcome_of(whole)
    flipped(out / "metrics.jsonl", rng)
    assert "metrics.jsonl is damaged: the arm is finished again" in runs.told(["learn", out, "--resume"], capsys)
    assert outcome_of(out) == outcome_of(whole)


@pytest.mark.parametrize("name", ["arm.json", "samples.json", "probes/step-000003.parquet", "model/model.safetensors"])
def test_a_finished_arm_with_a_damaged_file_is_finished_again(whole, tmp_path, name):
    folder, said = ArmFolder(tmp_path / "out"), []
    shutil.copytree(whole, folder.path)
    assert records.finished(folder, said.append, stops=False)["steps"] == 9
    shutil.rmtree(folder.adapter)  # may be deleted
    assert records.finished(folder, said.append, stops=False)
    assert not said
    flipped(folder.path / name, random.Random(name))
    assert records.finished(folder, said.append, stops=False) is None
    assert said == [f"{name} is damaged: the arm is finished again"]
    assert not folder.result.exists()
    assert folder.checkpoints.is_dir()


def test_an_arm_that_stopped_early_is_trained_again(whole, tmp_path):
    folder = ArmFolder(tmp_path / "out")
    shutil.copytree(whole, folder.path)
    flipped(folder.samples, random.Random(1))
    assert records.finished(folder, lambda _: None, stops=True) is None
    assert not folder.checkpoints.exists()  # its best weights are gone


def outcome_of(out: Path) -> object:
    """What a run found, but for its time."""
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return (
        [{key: value for key, value in line.items() if key != "seconds"} for line in metrics],
        (out / "probes" / "text.jsonl").read_text(),
        (out / "samples.json").read_text(),
        read_json(out / "arm.json")["weights_sha256"],
        sorted(path.name for path in (out / "probes").iterdir()),
    )


def test_a_damaged_summary_is_written_again_and_a_report_tells_of_damage(whole, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    flipped(out / "summary.json", random.Random(1))
    flipped(out / "metrics.jsonl", random.Random(1))
    flipped(out / "corpus.json", random.Random(1))
    notices = " ".join(read_run(out).notices)
    assert "summary.json cannot be read" in notices
    assert "damaged or changed): metrics.jsonl" in notices
    assert "damaged or changed): corpus.json" in notices
    assert not read_run(whole).notices


def test_a_summary_of_another_run_is_told_and_written_again(whole, things, tmp_path, capsys):
    folder = tmp_path / "first"
    file = runs.run_file(folder, things, arms={"plain": []}, train={"epochs": None, "steps": 1})
    runs.told(["learn", file], capsys)
    summary = (folder / "out" / "summary.json").read_text()
    shutil.copy(whole / "summary.json", folder / "out")
    (notice,) = [notice for notice in read_run(folder / "out").notices if "summary.json" in notice]
    assert "Arm plain: summary.json and arm.json differ in weights_sha256, seconds" in notice
    value = {**json.loads(summary), "seed": 9}
    value.pop("seal")
    write_json(folder / "out" / "summary.json", value, sealed=True)
    said = runs.told(["learn", file, "--resume"], capsys)
    assert "summary.json is of another run, by its seed, and is written again" in said
    again = read_json(folder / "out" / "summary.json")
    assert (again["seed"], again["arms"]) == (3, json.loads(summary)["arms"])
    assert not read_run(folder / "out").notices


def test_a_clock_that_goes_backwards_changes_nothing(whole, things, tmp_path, monkeypatch, capsys):
    moments = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr("time.time", lambda: next(moments))
    file = runs.run_file(tmp_path, things, arms={"plain": []})
    runs.told(["learn", file], capsys)
    assert outcome_of(tmp_path / "out") == outcome_of(whole)
    metrics = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["seconds"] > 0 for line in metrics)


def test_another_tokenizer_is_refused(stopped, tmp_path, things, capsys):
    out = copied(stopped, tmp_path)
    model = tmp_path / "tiny"
    shutil.copytree(things.model, model)
    config = out / "run.yaml"
    config.write_text(config.read_text().replace(str(things.model), str(model)))
    start = read_json(out / "start.json")
    start.pop("settings")
    write_json(out / "start.json", start, sealed=True)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, two = list(vocabulary)[40:42]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert AutoTokenizer.from_pretrained(model)
    assert "the tokenizer of model" in runs.refused(["learn", out, "--resume"], capsys)


def test_a_seal_holds_content_and_not_layout(tmp_path):
    path = tmp_path / "some.json"
    write_json(path, {"a": 0.1, 1: [float("inf"), "é"]}, sealed=True)
    assert read_json(path) == {"a": 0.1, "1": [float("inf"), "é"]}
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value))
    assert read_json(path)["a"] == 0.1
    path.write_text(json.dumps({**value, "a": 0.2}))
    with pytest.raises(ValueError, match=r"some.json is damaged: its content is not what was written"):
        read_json(path)
    assert value["seal"] == seal_of({"a": 0.1, "1": [float("inf"), "é"]})


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    """It keeps no hashes, so nothing is compared."""
    checkpoint = tmp_path / "checkpoints" / "step-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"stateful_callbacks": {"TrainerControl": {}}}')
    assert records.why_changed(ArmFolder(tmp_path), checkpoint) is None
