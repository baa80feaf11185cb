"""Whole runs of tiny models: what lies in the folder afterwards, and that the numbers are what they say."""

import gc
import itertools
import json
import math
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import runs
import tiny
from foci import models
from foci.config.run import load_run
from foci.learn import arm as arms
from foci.learn import baseline
from foci.learn.inputs import material
from foci.learn.run import learn
from foci.probes import answer, read_probes
from foci.report.measure import MEASURED
from foci.system.files import read_json

UPDATES = 9  # 10 rows, batches of 4, 3 epochs: 3 updates each
ARM_FILES = {"metrics.jsonl", "samples.json", "arm.json", "checkpoints", "probes", "model", "adapter"}
RUN_FILES = {
    "run.yaml", "rows.parquet", "quarantine.jsonl", "corpus.json", "probes.jsonl", "text.txt", "start.json",
    "baseline", "summary.json", "report.html", ".lock",
}  # fmt: skip


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def tokens_by_hand() -> list[int]:
    """Tokens of every row: those of its text, and the end of text."""
    return [len(tiny.tokenizer()(text).input_ids) + 1 for text, _, _ in runs.FACTS]


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def two_arms(tmp_path_factory, things):
    """(run, its summary) of a run with two arms."""
    run = load_run(runs.run_file(tmp_path_factory.mktemp("two"), things))
    return run, learn(run)


def test_every_file_is_where_it_should_be(two_arms):
    run, _ = two_arms
    assert names(run.output) == RUN_FILES | {"arms", "model", "adapter"}
    for kind in ("model", "adapter"):
        assert (run.output / kind).resolve() == (run.output / "arms" / "oracle" / kind).resolve(), "the best arm's"
    assert names(run.output / "arms") == {"plain", "oracle"}
    for arm in ("plain", "oracle"):
        folder = run.output / "arms" / arm
        assert names(folder) - {"scores"} == ARM_FILES
        assert names(folder / "probes") == {"text.jsonl", *(f"step-{n:06d}.parquet" for n in (0, 3, 6, 9))}
        assert names(folder / "checkpoints") == {"step-6", "step-8"}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names(folder / "model")
        assert {"adapter_config.json", "adapter_model.safetensors"} <= names(folder / "adapter")
    assert json.loads((run.output / "corpus.json").read_text()) == {
        "files": 1, "documents": 10, "rows": 10, "tokens": sum(tokens_by_hand()), "duplicates": 0, "quarantined": 0,
        "split": 0, "repeated": 0, "skipped": 0, "empty": 0, "notes": [],
    }  # fmt: skip
    assert (run.output / "quarantine.jsonl").read_text() == ""
    assert "small" in (run.output / "report.html").read_text()
    assert not [path for path in run.output.rglob("*") if ".part" in path.name or "staging" in path.name]


def test_the_file_in_the_folder_is_the_same_run(two_arms):
    run, _ = two_arms
    assert load_run(run.output / "run.yaml") == run
    assert load_run(run.output) == run


def test_the_summary_says_what_happened(two_arms):
    run, summary = two_arms
    assert read_json(run.output / "summary.json") == summary
    assert {"foci", "name", "started", "model", "seed", "machine", "versions", "corpus", "arms"} == set(summary)
    assert (summary["name"], summary["seed"], summary["model"]) == ("small", 3, run.model.name)
    assert list(summary["arms"]) == ["plain", "oracle"]
    plain, oracle = summary["arms"].values()
    assert (plain["methods"], oracle["methods"]) == ([], ["Oracle(floor=0.0)"])
    for arm in (plain, oracle):
        assert arm["steps"] == UPDATES
        assert arm["tokens"] == 3 * sum(tokens_by_hand())
        assert arm["seconds"] > 0
        assert 0 < arm["padding"] < 0.5
        assert arm["empty_updates"] == 0
        assert (arm["learn_probes"], arm["retain_asked"], arm["retained_probes"]) == (8, 4, 3)
        assert arm["retained"]["before"] == 1.0
        assert set(arm["learned_by_kind"]) == {"cloze", "qa"}
        assert set(arm["learned_by_kind"]["cloze"]) == {"whole", "accuracy", "nll"}
        assert set(arm["learned_by_kind"]["qa"]) == {
            "whole",
            "accuracy",
            "nll",
            "exact_match",
            "f1",
            "squad_exact_match",
        }
        assert {"majority", "balanced", "balanced_majority", "untouched_model"} <= set(arm["controls"])
        assert arm["controls"]["untouched_model"] == arm["learned"]["before"]
        for name in MEASURED:
            assert all(isinstance(arm[name][when], float) and arm[name][when] >= 0 for when in ("before", "after"))
            assert arm[name]["before"] == plain[name]["before"]
        assert [point["step"] for point in arm["path"]] == [0, 3, 6, 9]
        assert arm["path"][0]["learned"] == arm["learned"]["before"]
        assert arm["path"][-1]["learned"] == arm["learned"]["after"]
        assert arm["path"][-1]["bits_per_byte"] == arm["bits_per_byte"]["after"]
        assert arm["corpus_bits_per_byte"]["after"] < arm["corpus_bits_per_byte"]["before"]


def test_numbers_of_the_summary_are_those_of_the_tables(two_arms):
    run, summary = two_arms
    for name, arm in summary["arms"].items():
        folder = run.output / "arms" / name
        for when, step in (("before", 0), ("after", UPDATES)):
            table = pq.read_table(folder / "probes" / f"step-{step:06d}.parquet").to_pylist()
            learn = [line["accuracy"] for line in table if line["role"] == "learn"]
            kept = [line["accuracy"] for line in table if line["role"] == "retain" and line["counted"]]
            assert arm["learned"][when] == pytest.approx(sum(learn) / 8)
            assert arm["retained"][when] == pytest.approx(sum(kept) / 3)
            right = [line["correct"] for line in table if line["role"] == "learn"]
            still = [line["correct"] for line in table if line["role"] == "retain" and line["counted"]]
            assert arm["learned_whole"][when] == pytest.approx(sum(right) / 8)
            assert arm["retained_whole"][when] == pytest.approx(sum(still) / 3)
        losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert arm["loss"] == {"first": losses[0], "last": losses[-1]}
        assert arm["guessing_loss"] == pytest.approx(math.log(tiny.VOCAB))


def test_one_line_of_metrics_per_update(two_arms):
    run, summary = two_arms
    for name, arm in summary["arms"].items():
        found = lines(run.output / "arms" / name / "metrics.jsonl")
        assert [line["step"] for line in found] == list(range(1, UPDATES + 1))
        assert found[2]["tokens"] == sum(tokens_by_hand())  # an epoch reads every row once
        assert found[-1]["tokens"] == arm["tokens"]
        assert found[-1]["seconds"] == arm["seconds"]
        assert found[-1]["epoch"] == pytest.approx(3)
        assert found[0]["learning_rate"] == pytest.approx(0.02)
        assert all(math.isfinite(line["loss"]) and line["loss"] > 0 for line in found)
        assert all(a["seconds"] < b["seconds"] for a, b in itertools.pairwise(found))
        assert sum(line["padding"] for line in found) / UPDATES == pytest.approx(arm["padding"])
    plain, oracle = (lines(run.output / "arms" / name / "metrics.jsonl") for name in summary["arms"])
    # plain: every token but each row's first; oracle: the tokens of towns and jobs alone
    assert sum(line["weighted_tokens"] for line in plain[:3]) == sum(tokens_by_hand()) - 10
    rows = {row["source"]: row for row in pq.read_table(run.output / "rows.parquet").to_pylist()}
    assert 20 <= sum(line["weighted_tokens"] for line in oracle[:3]) < sum(tokens_by_hand()) / 2
    assert len(rows) == 10


def test_arms_share_one_baseline(two_arms):
    run, _ = two_arms
    folders = [run.output / "arms" / arm / "probes" for arm in ("plain", "oracle")]
    tables = [pq.read_table(folder / "step-000000.parquet") for folder in folders]
    assert tables[0].equals(tables[1])
    texts = [lines(folder / "text.jsonl")[0] for folder in folders]
    assert texts[0] == texts[1]
    assert texts[0]["step"] == 0


def assert_answers_as_told(folder: Path, run) -> None:
    """`model/` loads with Transformers alone and gives the NLL the table says."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    table = pq.read_table(folder / "probes" / f"step-{UPDATES:06d}.parquet").to_pylist()
    asked = read_probes(run.probes.learn, "learn") + read_probes(run.probes.retain, "retain")
    assert len(table) == len(asked) == 12
    for line, found in zip(table, answer(model, tokenizer, asked), strict=True):
        assert line["probe_id"] == found.probe_id
        assert line["nll"] == pytest.approx(found.nll, abs=1e-4)
    # one of them by hand: nats per token of " Bern" after its prompt
    first = asked[0]
    ids = tokenizer(first.prompt + " " + first.answer, return_tensors="pt").input_ids
    start = len(tokenizer(first.prompt).input_ids)
    with torch.no_grad():
        logs = model(ids).logits[0].log_softmax(-1)
    by_hand = -sum(float(logs[t - 1, ids[0, t]]) for t in range(start, ids.shape[1])) / (ids.shape[1] - start)
    assert table[0]["nll"] == pytest.approx(by_hand, abs=1e-4)


def peft(base: torch.nn.Module, folder: Path) -> PeftModel:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # PEFT 0.21's own call
        return PeftModel.from_pretrained(base, str(folder)).eval()


def test_the_models_load_with_transformers_and_peft(two_arms):
    run, _ = two_arms
    for arm in ("plain", "oracle"):
        folder = run.output / "arms" / arm
        assert_answers_as_told(folder, run)
        whole = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
        base = AutoModelForCausalLM.from_pretrained(run.model.name).eval()
        ids = torch.arange(2, 40)[None]
        with torch.no_grad():
            expected, untouched = whole(ids).logits, base(ids).logits
            adapted = peft(base, folder / "adapter")(ids).logits
        torch.testing.assert_close(adapted, expected, atol=1e-4, rtol=1e-4)
        assert (untouched - expected).abs().max() > 0.1  # it did learn something


def test_osf_is_trained_saved_merged_and_loaded(tmp_path, things):
    """The model folder, and the base model with the adapter, answer alike."""
    changes = {"arms": {"plain": []}, "train": {"learning_rate": 1e-2}, "probes": {"every": None}}
    path = runs.run_file(tmp_path, things, adapter=None, **changes)
    run = load_run(path, ["adapter.type=osf"])
    learn(run)
    whole = AutoModelForCausalLM.from_pretrained(run.output / "model").eval()
    base = AutoModelForCausalLM.from_pretrained(run.model.name).eval()
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        expected, untouched = whole(ids).logits, base(ids).logits
        adapted = peft(base, run.output / "adapter")(ids).logits
    torch.testing.assert_close(adapted, expected, atol=1e-4, rtol=1e-4)
    assert (untouched - expected).abs().max() > 0.1


def test_samples_show_weights_and_losses(two_arms):
    run, _ = two_arms
    for arm in ("plain", "oracle"):
        samples = json.loads((run.output / "arms" / arm / "samples.json").read_text())
        assert len(samples) == 10
        for row in samples:
            assert len(row["tokens"]) == len(row["weights"]) == len(row["nll_before"]) == len(row["nll_after"])
            assert row["nll_before"][0] is None
            assert len(row["answer"]) == len(row["tokens"])
            assert set(row["answer"]) == {0, 1}
            assert all(0 <= weight <= 1 for weight in row["weights"])
            number = int(row["source"].rpartition(":")[2]) - 1
            text, town, job = runs.FACTS[number]
            assert "".join(row["tokens"][:-1]) == text
            weighted = "".join(t for t, w in zip(row["tokens"], row["weights"], strict=True) if w)
            if arm == "oracle":
                assert weighted.replace(" ", "") == f"{town}{job}".replace(" ", "")


def test_full_fine_tuning_one_arm_no_learn_probes(tmp_path, things):
    changes = {"probes": {"learn": None, "every": None}, "arms": {"plain": []}, "train": {"learning_rate": 1e-3}}
    run = load_run(runs.run_file(tmp_path, things, adapter=None, **changes))
    arm = learn(run)["arms"]["plain"]
    assert names(run.output) - {"scores"} == RUN_FILES | ARM_FILES - {"adapter"}
    assert arm["learned"] is None or arm["learned"] == {"before": None, "after": None}
    assert arm["learn_probes"] == 0
    assert [point["step"] for point in arm["path"]] == [0, UPDATES]
    assert [point["learned"] for point in arm["path"]] == [None, None]
    assert arm["retained"]["before"] == 1.0
    model = AutoModelForCausalLM.from_pretrained(run.output / "model").eval()
    base = AutoModelForCausalLM.from_pretrained(run.model.name)
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    table = pq.read_table(run.output / "probes" / f"step-{UPDATES:06d}.parquet").to_pylist()
    found = answer(model, tiny.tokenizer(), read_probes(run.probes.retain, "retain"))
    assert [line["nll"] for line in table] == pytest.approx([one.nll for one in found], abs=1e-4)


def test_no_probes_at_all(tmp_path, things):
    probes = {"learn": None, "retain": None, "text": None, "corpus_text": False, "every": None}
    run = load_run(runs.run_file(tmp_path, things, probes=probes, arms={"plain": []}, train={"epochs": 1}))
    arm = learn(run)["arms"]["plain"]
    assert arm["steps"] == 3
    for name in ("learned", "retained", "bits_per_byte", "corpus_bits_per_byte"):
        assert arm[name] in (None, {"before": None, "after": None}), name
    assert (run.output / "report.html").is_file()


def test_accumulation_copies_and_steps_are_counted(tmp_path, things):
    train = {"epochs": None, "steps": 4, "batch_size": 2, "accumulation": 2, "copies": 2}
    run = load_run(runs.run_file(tmp_path, things, train=train, arms={"plain": []}))
    arm = learn(run)["arms"]["plain"]
    assert arm["steps"] == 4
    found = lines(run.output / "metrics.jsonl")
    assert [round(line["epoch"], 2) for line in found] == [0.2, 0.4, 0.6, 0.8]  # 20 rows in an epoch, 4 an update
    assert all(line["weighted_tokens"] == line["tokens"] - before - 4 for line, before in zip(
        found, [0, *(line["tokens"] for line in found)], strict=False))  # fmt: skip


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path, things):
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run = load_run(runs.run_file(tmp_path / name, things, seed=seed, arms={"plain": []}, train={"epochs": 1}))
        found.append(learn(run)["arms"]["plain"]["weights_sha256"])
    assert found[0] == found[1] != found[2]


def test_the_model_that_was_asked_is_the_first_arms(tmp_path, things, monkeypatch):
    loaded: list[tuple] = []
    loading = models.load_configured
    monkeypatch.setattr(models, "load_configured", lambda *what: loaded.append(what) or loading(*what))
    settings = runs.run_file(tmp_path, things, train={"steps": 1, "epochs": None}, probes={"every": None})
    learn(load_run(settings), console=Console(quiet=True))
    assert len(loaded) == 2  # one per arm, and none for the baseline alone


def test_an_arm_does_not_keep_the_models_of_the_one_before(tmp_path, things, monkeypatch):
    """Cycles between trainer and model are not left to a collector that counts objects, not bytes."""
    alive: list[int] = []

    def load(start):
        held = sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects())
        alive.append(held - len(start.untouched))  # the model that was asked is the first arm's
        return loading(start)

    loading = baseline.load
    monkeypatch.setattr(arms, "load", load)
    settings = runs.run_file(tmp_path, things, train={"steps": 1, "epochs": None}, probes={"every": None})
    gc.collect()
    gc.disable()
    try:
        learn(load_run(settings), console=Console(quiet=True))
    finally:
        gc.enable()
    assert alive[1] <= alive[0]


def test_a_plan_that_cannot_work_is_refused_before_the_first_arm_trains(tmp_path, capsys):
    things = runs.material(tmp_path)
    tried = {"plain": [], "held": ["oracle", "lwf", {"lwf": {"below": 0.5}}], "alone": ["lwf"]}
    said = runs.refused(["learn", runs.run_file(tmp_path, things, arms=tried)], capsys)
    assert "nothing weighs tokens in this plan" in said
    assert "Lwf" in said
    assert not list(tmp_path.glob("out/**/step-*"))
    del tried["alone"]
    assert material(load_run(runs.run_file(tmp_path, things, arms=tried))).rows
