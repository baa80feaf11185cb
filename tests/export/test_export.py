"""`foci export`: other libraries load what was written, and it answers as the trained model did."""

import io
import json
import shlex
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from rich.console import Console
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import runs
from foci.config.run import load_run
from foci.export import place
from foci.export.checking import Check, Questions, table_of, worse
from foci.export.place import RECORD, placed
from foci.export.source import source_of
from foci.learn.run import learn
from foci.system.files import read_json, sha256, write_json


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two arms upon a model in bfloat16; the best arm is `oracle`."""
    folder = tmp_path_factory.mktemp("export")
    things = runs.material(folder)
    AutoModelForCausalLM.from_pretrained(things.model, dtype=torch.bfloat16).save_pretrained(things.model)
    read = load_run(runs.run_file(folder, things, adapter={"dropout": 0.0}))
    learn(read, console=Console(file=io.StringIO()))
    return read.output


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run", symlinks=True)


def formats(file):
    with safe_open(file, "pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118


def test_the_merged_model_has_the_precision_of_its_base(run, tmp_path, capsys):
    said = runs.told(["export", run, "--out", tmp_path / "out"], capsys)
    assert "Transformers" in said
    assert "bfloat16" in said
    found, own = formats(tmp_path / "out" / "model.safetensors"), formats(run / "arms/oracle/model/model.safetensors")
    assert found.keys() == own.keys()
    for key, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, own[key].to(torch.bfloat16)), key
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("Ada").input_ids
    assert ModelCard.load(tmp_path / "out" / "README.md").data.base_model is None
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (record["arm"], record["precision"]) == ("oracle", "bfloat16")
    assert [check["program"] for check in record["checks"]] == ["trained model", "Transformers"]
    assert record["checks"][1]["asked"] == 11
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]  # nothing beside it


def test_an_arm_can_be_named_and_the_folder_is_in_the_run(copy, capsys):
    runs.told(["export", copy, "--arm", "plain"], capsys)
    assert json.loads((copy / "export" / "plain-model" / "export.json").read_text())["arm"] == "plain"
    assert "holds an export already" in runs.refused(["export", copy, "--arm", "plain"], capsys)
    runs.told(["export", copy, "--arm", "plain", "--overwrite", "--verify", "0"], capsys)
    assert sorted(path.name for path in (copy / "export").iterdir()) == ["plain-model"]


def test_peft_loads_the_adapter_and_it_answers_the_same(run, tmp_path, capsys):
    said = runs.told(["export", run, "--adapter", "--out", tmp_path / "out"], capsys)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    first, second = record["checks"]
    assert second["program"] == "PEFT"
    assert second["same"] == second["asked"] == first["asked"] > 5
    assert "--enable-lora --max-lora-rank 8 --lora-modules" in said
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT reads names that Transformers will drop
        PeftModel.from_pretrained(base, tmp_path / "out")


def test_a_merged_model_that_was_deleted_is_made_again(copy, tmp_path, capsys):
    kept = formats(copy / "arms/oracle/model/model.safetensors")
    shutil.rmtree(copy / "arms/oracle/model")
    runs.told(["export", copy, "--out", tmp_path / "out"], capsys)
    for key, tensor in formats(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(tensor.float(), kept[key].to(torch.bfloat16).float(), atol=1e-2, rtol=1e-2)
    assert not (tmp_path / "out" / ".whole").exists()


def test_a_weight_too_large_for_the_bases_format_is_refused(copy, tmp_path, capsys):
    base = load_run(copy).model.name
    half = tmp_path / "half"
    shutil.copytree(base, half)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(half)
    model = copy / "arms" / "oracle" / "model"
    grown = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        next(iter(grown.parameters()))[0, 0] = 1e6
    grown.save_pretrained(model)
    result = read_json(model.parent / "arm.json")
    result["files"]["model/model.safetensors"] = sha256(model / "model.safetensors")
    write_json(model.parent / "arm.json", result, sealed=True)
    text = (copy / "run.yaml").read_text()
    (copy / "run.yaml").write_text(text.replace(base, str(half)))
    words = runs.refused(["export", copy, "--out", tmp_path / "out"], capsys)
    assert "too large for torch.float16" in " ".join(words.split())
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "no_such"),
        ("empty", "is not a run"),
        ("unfinished", "is not done"),
        ("gone", "neither adapter/ nor model/"),
        ("cut", "model.safetensors"),
        ("arm", "no arm 'orakle'"),
        ("adapter", "adapter/adapter_model.safetensors are not those that the run wrote"),
        ("model", "model/model.safetensors are not those that the run wrote"),
        ("made again", "adapter/adapter_model.safetensors are not those that the run wrote"),
        ("whole", "trained all weights"),
    ],
)
def test_bad_inputs_are_told_in_one_paragraph(copy, tmp_path, capsys, damage, words):
    target, flags, own = copy, ["--out", tmp_path / "out"], copy / "arms" / "oracle"
    if damage == "missing":
        target = tmp_path / "no_such"
    elif damage == "empty":
        target = tmp_path / "empty"
        target.mkdir()
    elif damage == "unfinished":
        for arm in ("plain", "oracle"):
            (copy / "arms" / arm / "arm.json").unlink()
    elif damage == "gone":
        for name in ("model", "adapter"):
            shutil.rmtree(own / name)
    elif damage == "cut":
        file = own / "model" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "arm":
        flags += ["--arm", "orakle"]
    elif damage in {"adapter", "made again"}:
        shutil.copy(copy / "arms/plain/adapter/adapter_model.safetensors", own / "adapter")
        if damage == "adapter":
            flags += ["--adapter"]
        else:
            shutil.rmtree(own / "model")
    elif damage == "model":
        shutil.copy(copy / "arms/plain/model/model.safetensors", own / "model")
    elif damage == "whole":
        text = (copy / "run.yaml").read_text()
        before, _, after = text.partition("adapter:\n")
        (copy / "run.yaml").write_text(f"{before}adapter: null\n{after[after.index('train:') :]}")
        flags += ["--adapter"]
    said = " ".join(runs.refused(["export", target, *flags], capsys).split())
    assert words in said
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_free(run, tmp_path, capsys):
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("mine")
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    for out in (file, full):
        for more in ([], ["--overwrite"]):
            runs.refused(["export", run, "--out", out, *more], capsys)
    assert file.read_text() == (full / "mine.txt").read_text() == "mine"


def test_no_room_is_told_before_anything_is_written(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(place.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1000))
    words = runs.refused(["export", run, "--out", tmp_path / "a" / "out"], capsys)
    assert "MB left" in words
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_kill_leaves_the_old_export_and_no_rubbish(run, tmp_path, capsys, signum, code):
    """What SIGKILL leaves lies beside the folder, and the next export deletes it."""
    out = tmp_path / "out"
    runs.told(["export", run, "--out", out, "--verify", "0"], capsys)
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    child = runs.start(
        ["export", run, "--out", out, "--overwrite"], tmp_path, moment=("foci.card.write.write_card", 1, signum)
    )
    assert child.wait() == code
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    if signum == signal.SIGTERM:
        assert not list(tmp_path.glob(".out.*"))
    runs.told(["export", run, "--out", out, "--overwrite", "--verify", "0"], capsys)
    assert not list(tmp_path.glob(".out.*"))
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} != before


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    out = tmp_path / "out"
    with placed(out, 1, overwrite=False) as part:
        (part / "export.json").write_text("{}")
    out.rename(tmp_path / ".out.old")  # as far as the killed process came
    with pytest.raises(ValueError, match="stop"), placed(out, 1, overwrite=True):
        raise ValueError("stop")
    assert (out / "export.json").is_file()
    shutil.copytree(out, tmp_path / ".out.old")  # killed after its last rename, before it deleted what was there
    with placed(out, 1, overwrite=True) as part:
        (part / "export.json").write_text('{"new": 1}')
    assert "new" in (out / "export.json").read_text()
    assert not list(tmp_path.glob(".out.*"))


def test_two_processes_do_not_write_the_same_folder(tmp_path):
    with placed(tmp_path / "out", 1, overwrite=False) as part:
        (part / "export.json").write_text("{}")
        with pytest.raises(FileExistsError, match="another process"), placed(tmp_path / "out", 1, overwrite=False):
            pass
    assert (tmp_path / "out" / "export.json").is_file()


def test_questions_are_of_both_kinds_and_spread(run):
    source = source_of(run)
    assert source.arm == "oracle"
    few = Questions(source, 4)
    assert [probe.role for probe in few.probes] == ["learn", "learn", "retain", "retain"]
    assert all(one.counted for one in few.known)
    assert len(Questions(source, 1000).probes) == 11  # the probe to retain that the model never knew does not count
    assert Questions(source, 0).probes == []
    assert few.trained().same == 4


def test_worse_answers_are_warned_of():
    first, bad, good = Check("a", 10, tokens=0.8), Check("b", 10, tokens=0.74), Check("c", 10, tokens=0.76)
    assert worse([first, bad, good, Check("d")]) == ["b predicts 74.0 % of the answer tokens, the trained model 80.0 %"]
    assert len(table_of([first, bad, Check("d", notes=("no",))]).rows) == 2


def test_a_run_that_asks_nothing_is_exported_too(tmp_path, capsys):
    things = runs.material(tmp_path)
    probes = {"learn": None, "retain": None, "text": None, "corpus_text": False}
    read = load_run(runs.run_file(tmp_path, things, probes=probes, train={"epochs": 1}, arms={"plain": []}))
    learn(read, console=Console(file=io.StringIO()))
    said = runs.told(["export", read.output], capsys)
    assert "to learn" not in said
    assert "float32" in said
    assert "Nothing was asked." in (read.output / "export" / "plain-model" / "README.md").read_text()


def test_files_of_others_in_an_export_are_never_overwritten(copy, tmp_path, capsys):
    out = tmp_path / "out"
    runs.told(["export", copy, "--adapter", "--out", out, "--verify", 0], capsys)
    assert read_json(out / RECORD)["files"] == sorted(file.name for file in out.iterdir())
    (out / "NOTES.txt").write_text("mine")
    words = runs.refused(["export", copy, "--adapter", "--out", out, "--overwrite"], capsys)
    assert "NOTES.txt" in words
    assert (out / "NOTES.txt").read_text() == "mine"
    (out / "NOTES.txt").unlink()
    runs.told(["export", copy, "--adapter", "--out", out, "--verify", 0, "--overwrite"], capsys)


def test_printed_commands_can_be_pasted_where_folders_have_spaces(run, tmp_path, capsys):
    """What other programs load is named so that they find it, wherever they are started."""
    there = tmp_path / "my run"
    shutil.copytree(run, there)
    source = source_of(there)
    assert shlex.split(source.command("--adapter")) == ["foci", "export", str(there), "--arm", source.arm, "--adapter"]
    assert Path(source.base_place()).is_absolute()
    assert (Path(source.base_place()) / "config.json").is_file()
    said = runs.told(["export", there, "--adapter", "--verify", 0, "--out", tmp_path / "an adapter"], capsys)
    line = next(line for line in said.splitlines() if line.startswith("vllm "))
    assert shlex.split(line)[2] == source.base_place()
    assert read_json(tmp_path / "an adapter" / "adapter_config.json")["base_model_name_or_path"] == source.base_place()
