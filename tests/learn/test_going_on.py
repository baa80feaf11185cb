"""Runs that go on from a finished one: three batches of pages, end to end on a tiny model, through the command line."""

import io
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file

import runs
from foci.cli.runs import run_from
from foci.config.run import load_run
from foci.corpus import read_rows
from foci.learn.earlier import Earlier
from foci.learn.finished import read_finished
from foci.models import load
from foci.models.adapters import peft_quiet
from foci.models.saved_adapter import answers
from foci.probes import Answer, read_answers
from foci.report.terminal import print_table

PAGES = {"monday": slice(0, 4), "tuesday": slice(4, 7), "friday": slice(7, 10)}


@pytest.fixture(scope="module")
def chain(tmp_path_factory, request):
    """A folder with three batches of pages and the runs out/monday, out/tuesday and out/friday, one after another."""
    folder = tmp_path_factory.mktemp("chain")
    things = runs.material(folder / "things")
    for name, part in PAGES.items():
        runs.write_lines(folder / f"{name}.jsonl", runs.documents()[part])
        asked = [line | {"id": f"q{n}"} for n, line in enumerate(questions()[part])]
        runs.write_lines(folder / f"{name}-asked.jsonl", asked)
    file = runs.run_file(
        folder, things, name="monday", output=str(folder / "out" / "monday"),
        corpus={"path": str(folder / "monday.jsonl")}, probes={"learn": str(folder / "monday-asked.jsonl")},
        arms={"plain": [], "held": [{"lwf": {"on": "all", "teacher": "live"}}]},
    )  # fmt: skip
    runs.finished(["learn", file], folder)
    for before, name in (("monday", "tuesday"), ("tuesday", "friday")):
        runs.finished(go_on(folder, name, before), folder)
    return folder


def questions() -> list[dict[str, object]]:
    return [
        {"kind": "cloze", "group": "town", "prompt": text[: text.index(town)].rstrip(), "answer": town}
        for text, town, _ in runs.FACTS
    ]


def go_on(folder: Path, name: str, before: str, *more: str) -> list[object]:
    arm = ["--arm", "held"] if before == "monday" else []
    return ["learn", folder / f"{name}.jsonl", "--from", folder / "out" / before, *arm, "--out", folder / "out" / name,
            f"probes.learn={folder / f'{name}-asked.jsonl'}", "probes.every=null", *more]  # fmt: skip


def summary(folder: Path) -> dict[str, object]:
    return json.loads((folder / "summary.json").read_text())


def test_the_adapter_stays_one_adapter_upon_the_untouched_model(chain):
    """No adapter upon an adapter: the same shapes, the same base, and PEFT alone loads it to the merged model."""
    settings = [json.loads((path / "adapter" / "adapter_config.json").read_text()) for path in outs(chain)]
    assert len({one["base_model_name_or_path"] for one in settings}) == 1
    weights = [load_file(path / "adapter" / "adapter_model.safetensors") for path in outs(chain)]
    shapes = [{name: tensor.shape for name, tensor in one.items()} for one in weights]
    assert shapes[0] == shapes[1] == shapes[2]
    assert not torch.equal(*(next(iter(one.values())) for one in weights[1:])), "and it went on learning"
    base = load(settings[2]["base_model_name_or_path"]).model
    with peft_quiet():
        alone = answers(PeftModel.from_pretrained(base, str(outs(chain)[2] / "adapter")))
    assert torch.allclose(alone, answers(load(str(outs(chain)[2] / "model")).model), atol=1e-4)


@pytest.mark.parametrize(
    ("typed", "length"),
    [("train.steps=2", (None, 2, 0)), ("train.epochs=5", (5, None, 0)), ("seed=4", (3, None, 0))],
)
def test_a_length_that_is_typed_replaces_that_of_the_run_before(chain, typed, length):
    found = run_from(str(chain / "out" / "tuesday"), None, [str(chain / "friday.jsonl")], None, [typed]).train
    assert (found.epochs, found.steps, found.least_steps) == length


def outs(chain: Path) -> list[Path]:
    return [chain / "out" / "monday" / "arms" / "held", chain / "out" / "tuesday", chain / "out" / "friday"]


def test_it_begins_where_the_run_before_ended(chain):
    """The frozen baseline of a run is the model of the run before, not the untouched one."""
    last = max((chain / "out" / "tuesday" / "probes").glob("step-*.parquet"))
    before = {a.probe_id: a for a in read_answers(last)}
    start = {a.probe_id: a for a in read_answers(chain / "out" / "friday" / "baseline" / "probes.parquet")}
    retain = [name for name in before if before[name].role == "retain"]
    assert len(retain) == 4
    for name in retain:
        assert start[name].nll == pytest.approx(before[name].nll, rel=1e-3)
    first = read_answers(chain / "out" / "friday" / "earlier" / "untouched.parquet")
    known = {a.probe_id: a.nll for a in first}
    assert any(abs(known[name] - start[name].nll) > 1e-2 for name in retain), "and that is another one"


def test_nothing_is_said_beside_the_runs_own_words(chain):
    """PEFT looks for the base model of an adapter whenever it saves; it must not look on the hub."""
    said = [path.read_text() for path in sorted(chain.glob("*.err"))]
    assert len(said) >= 3
    assert said == [""] * len(said)


def test_only_the_rows_grow(chain):
    later = (chain / "out" / name / "earlier" / "rows.parquet" for name in ("tuesday", "friday"))
    counts = [len(read_rows(path)) for path in later]
    assert counts == [4, 7]
    state = json.loads((chain / "out" / "friday" / "earlier" / "state.json").read_text())
    assert [batch["name"] for batch in state["batches"]] == ["monday", "tuesday"]
    assert [batch["rows"] for batch in state["batches"]] == [4, 3]
    rows = read_rows(chain / "out" / "friday" / "rows.parquet")
    assert len(rows) == 6, "three new ones, and as many of the seven earlier ones"
    assert all("friday" in row.source for row in rows[:3])
    assert not any("friday" in row.source for row in rows[3:])


def test_the_table_says_what_each_batch_taught_and_what_stayed(chain):
    found = summary(chain / "out" / "friday")["arms"]["held"]["batches"]
    assert found["after"] == ["", "monday", "tuesday", "friday"]
    assert [(page["name"], page["probes"]) for page in found["pages"]] == [("monday", 4), ("tuesday", 3), ("friday", 3)]
    assert [[value is None for value in page["learned"]] for page in found["pages"]] == [
        [False] * 4, [False] * 4, [False, True, False, False]]  # fmt: skip
    for page in found["pages"]:
        assert len(page["tokens"]) == 4
    (old,) = {len(read_answers(chain / "out" / "friday" / "earlier.parquet"))}
    assert old == 7
    right = [a.correct for a in read_answers(chain / "out" / "friday" / "earlier.parquet") if a.probe_id[:2] == "1/"]
    assert found["pages"][0]["learned"][3] == sum(right) / 4
    assert found["general"]["known"] == 3
    assert found["general"]["kept"][0] == 1.0
    assert len(found["general"]["kept"]) == len(found["general"]["bits_per_byte"]) == 4
    first = summary(chain / "out" / "monday")["arms"]["held"]
    assert found["pages"][0]["learned"][:2] == [first["learned_whole"][when] for when in ("before", "after")]


def test_a_killed_run_goes_on_to_the_same_bits(chain, tmp_path):
    again = [str(word) for word in go_on(chain, "friday", "tuesday")]
    again[again.index("--out") + 1] = str(tmp_path / "friday")
    child = runs.start(again, tmp_path, moment=("foci.system.checkpoint.seal", 2, signal.SIGKILL))
    assert child.wait() == -signal.SIGKILL
    runs.finished(["learn", tmp_path / "friday", "--resume"], tmp_path)
    ours, theirs = (load_file(path / "adapter" / "adapter_model.safetensors")
                    for path in (tmp_path / "friday", chain / "out" / "friday"))  # fmt: skip
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_report_and_the_terminal_show_the_table(chain):
    page = (chain / "out" / "friday" / "report.html").read_text()
    assert '<section id="batches">' in page
    assert "untouched mean the model of tuesday" in page
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(summary(chain / "out" / "friday"), console)
    told = console.export_text()
    for words in ("batches of pages", "that the model of tuesday answers", "untouched monday tuesday friday"):
        assert " ".join(words.split()) in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 80
    page = found["pages"][0] if (found := summary(chain / "out" / "friday")["arms"]["held"]["batches"]) else {}
    assert f"({100 * page['tokens'][-1]:.0f})" in told, "answer tokens stand in brackets"


def test_by_hand():
    def said(name: str, right: bool, role: str = "learn") -> Answer:
        return Answer(name, role, "cloze", "", "p", "a", "", right, float(right), None, None, 0.0, True)

    history = {"after": ["", "a"], "pages": [{"name": "a", "probes": 2, "learned": [0.0, 1.0], "tokens": [0.0, 1.0]}],
               "general": {"known": 1, "kept": [1.0, 1.0], "bits_per_byte": [1.0, 1.1]}}  # fmt: skip
    untouched = (said("x", False), said("r", True, "retain"), said("s", False, "retain"))
    earlier = Earlier("b", "plain", 1, (), history, untouched)
    after = [said("x", True), said("r", False, "retain"), said("s", True, "retain")]
    found = earlier.after([said("x", False)], after, [said("1/q", True), said("1/r", False)], 1.2)
    assert found["pages"][0]["learned"] == [0.0, 1.0, 0.5]
    assert found["pages"][1] == {"name": "b", "probes": 1, "learned": [0.0, 0.0, 1.0], "tokens": [0.0, 0.0, 1.0]}
    general = {"known": 1, "kept": [1.0, 1.0, 0.0], "bits_per_byte": [1.0, 1.1, 1.2]}
    assert found["general"] == general | {"asked": None}
    assert history["after"] == ["", "a"], "the old one is as it was"

    def general_after(asked):
        history["general"]["asked"] = {"facts": "general", "text": "0123"}
        now = Earlier("b", "plain", 1, (), history, untouched, asked)
        return now.after([said("x", False)], after, [said("1/q", True), said("1/r", False)], 1.2)["general"]

    assert general_after({"facts": "general", "text": "0123"})["bits_per_byte"] == [1.0, 1.1, 1.2]
    other_text, other_facts = {"facts": "general", "text": "4567"}, {"facts": "4567", "text": "0123"}
    assert general_after(other_text) == general | {"asked": other_text, "bits_per_byte": [None, None, 1.2]}
    assert general_after(other_facts) == general | {"asked": other_facts, "kept": [None, None, 0.0]}


def test_several_texts_and_changes_are_told_apart_in_any_order(chain, tmp_path, capsys, monkeypatch):
    def stopped(run, **_):
        raise ValueError(f"learns {', '.join(Path(path).name for path in run.corpus.path)} {run.train.epochs} times")

    monkeypatch.setattr("foci.learn.run.learn", stopped)
    friday, wednesday = chain / "friday.jsonl", tmp_path / "wednesday.md"
    wednesday.write_text("Ada Byte was born in Bern.\n", encoding="utf-8")
    words = ["train.epochs=7", friday, wednesday, "--from", chain / "out" / "monday", "--out", tmp_path / "out"]
    assert "learns friday.jsonl, wednesday.md 7 times" in runs.refused(["learn", *words], capsys)


def test_what_cannot_be_gone_on_from_is_refused(chain, tmp_path, capsys):
    new = chain / "friday.jsonl"

    def refused(*words: object) -> str:
        return runs.refused(["learn", *words, "--out", tmp_path / "x"], capsys)

    assert "'absent' is not in" in refused(new, "--from", tmp_path / "absent")
    assert "is not a run: there is no run.yaml" in refused(new, "--from", chain)
    assert "has no arm 'focussed'; known: plain, held" in refused(
        new, "--from", chain / "out/monday", "--arm", "focussed"
    )
    assert "give --from RUN too" in refused(new, "--arm", "held")
    assert "leave --model out" in refused(new, "--from", chain / "out/monday", "--model", "m")
    assert "Got no text" in refused("--from", chain / "out/monday")
    assert "goes on with further texts" in refused(chain / "small.yaml", "--from", chain / "out/monday")
    assert "has adapter" in refused(new, "--from", chain / "out/monday", "adapter.r=8")
    assert "there is nothing new" in refused(chain / "monday.jsonl", "--from", chain / "out/monday")
    broken = shutil.copytree(chain / "out" / "tuesday", tmp_path / "broken")
    (broken / "start.json").rename(tmp_path / "start.json")
    assert "there is no start.json" in refused(new, "--from", broken)
    (tmp_path / "start.json").rename(broken / "start.json")
    weights = broken / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "are not those that the run wrote" in refused(new, "--from", broken)
    shutil.rmtree(broken / "adapter")
    assert "nothing to go on from" in refused(new, "--from", broken)
    (broken / "arm.json").write_text("[1")
    assert "is damaged" in refused(new, "--from", broken)
    (broken / "arm.json").unlink()
    assert "is not done" in refused(new, "--from", broken)
    own = chain / "out" / "tuesday"
    told = runs.refused(["learn", new, "--from", own, "--out", own, "--overwrite"], capsys)
    assert "which must stay" in told
    assert (own / "adapter").is_dir(), "and it did stay"


def test_old_pages_that_changed_are_told_and_known_ones_are_no_new_ones(chain, tmp_path, capsys):
    """The rows that were learned are in the run's folder: the old file may go."""
    folder = shutil.copytree(chain, tmp_path / "copy")
    both = runs.write_lines(tmp_path / "both.jsonl", runs.documents()[:7])
    (chain / "monday.jsonl").rename(chain / "away.jsonl")
    try:
        told = runs.told(["learn", both, "--from", folder / "out/monday", "--arm", "plain", "--out", tmp_path / "both",
                          "probes.learn=null", "train.epochs=1", "continues.ratio=0.5"], capsys)  # fmt: skip
    finally:
        (chain / "away.jsonl").rename(chain / "monday.jsonl")
    assert "gone: " in told
    assert "they are rehearsed as they were when they were learned" in " ".join(told.split())
    assert "4 rows of these pages were learned before" in told
    assert "rehearses 2 of 4 rows" in told
    run = load_run(tmp_path / "both")
    assert (list(run.arms), run.continues.arm) == (["plain"], "plain")


FREEZE = '''
from dataclasses import dataclass
from foci.focus import ScalesLayers

@dataclass(frozen=True)
class Freeze(ScalesLayers):
    """Freezes the first layer."""
    def scale(self, block):
        return 0.0 if block == "layers.0" else 1.0
'''


def test_a_layer_without_an_adapter_stays_without(chain, tmp_path):
    (tmp_path / "freeze.py").write_text(FREEZE)
    things = runs.Things(*(chain / "things" / name for name in (
        "tiny", "corpus.jsonl", "learn.jsonl", "retain.jsonl", "page.txt")))  # fmt: skip
    file = runs.run_file(
        tmp_path, things, corpus={"path": str(chain / "monday.jsonl")}, train={"epochs": 1},
        arms={"top": [f"{tmp_path}/freeze.py:Freeze"]},
    )  # fmt: skip
    runs.finished(["learn", file], tmp_path)
    runs.finished(["learn", chain / "tuesday.jsonl", "--from", tmp_path / "out", "--out", tmp_path / "next",
                   "probes.learn=null"], tmp_path)  # fmt: skip
    first, then = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("out", "next"))
    assert first.keys() == then.keys()
    assert not any(".layers.0." in name for name in then)
    assert any(not torch.equal(first[name], then[name]) for name in then)


def test_an_adapter_that_is_merged_into_a_model_can_be_trained_as_a_whole(chain):
    """PEFT freezes the weights beside an adapter; a run of all weights upon such a model would train nothing."""
    assert all(p.requires_grad for p in load(str(chain / "out" / "tuesday" / "adapter")).model.parameters())


def test_all_weights_go_on_too(chain, tmp_path):
    things = runs.Things(*(chain / "things" / name for name in (
        "tiny", "corpus.jsonl", "learn.jsonl", "retain.jsonl", "page.txt")))  # fmt: skip
    file = runs.run_file(
        tmp_path, things, corpus={"path": str(chain / "monday.jsonl")}, adapter=None, arms={"plain": []},
        train={"learning_rate": 1e-3, "epochs": 1},
    )  # fmt: skip
    runs.finished(["learn", file], tmp_path)
    runs.finished(["learn", chain / "tuesday.jsonl", "--from", tmp_path / "out", "--out", tmp_path / "next",
                   "probes.learn=null"], tmp_path)  # fmt: skip
    assert not (tmp_path / "next" / "adapter").exists()
    assert summary(tmp_path / "next")["arms"]["plain"]["batches"]["after"] == ["", "small", "tuesday"]


def test_a_card_says_whose_answers_the_numbers_before_are(chain):
    """A run that goes on is measured against the model that it went on from, which has forgotten already."""
    first, second = ((chain / "out" / name / "model" / "README.md").read_text() for name in ("monday", "tuesday"))
    assert "| untouched |" in first
    assert "the model of" not in first
    assert "| before |" in second
    measured = second[second.index("## What was measured") : second.index("## Methods")]
    assert "untouched" not in measured
    assert "that the model of `monday` knew" in measured


def test_another_tokenizer_is_refused_and_edited_questions_are_no_changed_page(chain, tmp_path, capsys):
    """The old rows are ids; of another tokenizer they would be other text."""
    folder = shutil.copytree(chain, tmp_path / "chain")
    before = read_finished(folder / "out" / "monday", "held")
    before.check_tokenizer(json.loads((before.path / "start.json").read_text())["tokenizer"])
    with pytest.raises(ValueError, match="would be other text now"):
        before.check_tokenizer("0123")
    own = before.batches()[-1]["files"]
    assert [Path(file).name for file in own] == ["monday.jsonl"], "neither questions nor other texts are pages"
