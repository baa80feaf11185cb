"""Runs without probes: they are made from the corpus, kept as a file, held out by sentence, and told."""

import json

import pytest
from rich.console import Console

import handbook
import runs
import tiny
from foci.config.run import load_run
from foci.corpus import read_rows
from foci.corpus.sentences import one_line
from foci.focus import Context
from foci.learn.inputs import material
from foci.learn.making import rows_with_evidence
from foci.learn.questions import Questions
from foci.learn.run import learn
from foci.methods.study import Study
from foci.probes import Probe, read_probes
from foci.probes.making.make import make_probes

QUICK = {"probes": {"learn": "made", "every": None}, "arms": {"plain": []}, "train": {"epochs": None, "steps": 2}}


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A tiny model that reads 512 tokens: its positions are rotations, so that no weight depends on it."""
    things = runs.material(tmp_path_factory.mktemp("things"))
    config = json.loads((things.model / "config.json").read_text())
    (things.model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return things


def run_of(folder, things, *, pages="", **changes):
    paths = [str(path) for path in sorted(handbook.FOLDER.glob(f"{pages}*.md"))] if pages else str(handbook.FOLDER)
    corpus = {"path": paths, "max_length": 400}
    return load_run(runs.run_file(folder, things, corpus=corpus, **{**QUICK, **changes}))


@pytest.fixture(scope="module")
def whole(things, tmp_path_factory):
    """A finished run of the handbook without probes of its own: its folder, its summary, and what it said."""
    console = Console(width=100, record=True, file=None, quiet=False)
    run = run_of(tmp_path_factory.mktemp("whole"), things)
    with open("/dev/null", "w") as nowhere:  # noqa: PTH123
        console.file = nowhere
        summary = learn(run, console=console)
    return run, summary, console.export_text()


def test_a_run_without_probes_makes_them_and_has_a_learned_score(whole):
    run, summary, words = whole
    made = read_probes(run.output / "made_probes.jsonl", "learn")
    held = sum(probe.held_out for probe in made)
    arm = summary["arms"]["plain"]
    assert len(made) > 30
    assert arm["learn_probes"] == len(made) - held
    assert set(arm["learned_whole"]) == {"before", "after"}
    assert arm["learned_whole"]["before"] == 0.0
    assert arm["held_out"]["learn_probes"] == held == round(0.2 * len(made))
    assert sum(arm["not_learned"].values()) == round((1 - arm["learned_whole"]["after"]) * arm["learn_probes"])
    assert f"{len(made)} probes made by rule, one each from {len(made)} of " in words
    assert "no probes to learn" not in words


def test_the_file_may_be_given_back(whole, things, tmp_path):
    run, _, _ = whole
    again = run_of(tmp_path, things, probes={"learn": str(run.output / "made_probes.jsonl"), "every": None})
    assert material(again).questions.probes == material(run).questions.probes
    assert material(again).made is None


def test_check_shows_three_of_them(things, tmp_path, capsys):
    file = runs.run_file(tmp_path, things, corpus={"path": str(handbook.FOLDER), "max_length": 400}, **QUICK)
    words = runs.told(["check", str(file)], capsys)
    assert "probes made by rule" in words
    assert len([line for line in words.splitlines() if " -> " in line]) == 3


def test_text_without_facts_says_so_and_is_measured_by_its_own_text(things, tmp_path, capsys):
    page = tmp_path / "page.txt"
    page.write_text("they went home and slept well\n\nthen it rained all day long\n")
    file = runs.run_file(tmp_path, things, corpus={"path": str(page)}, **QUICK)
    words = runs.told(["learn", str(file)], capsys)
    assert "no probes made by rule from 2 sentences; left out: no whole sentence 2" in one_line(words)
    assert not (tmp_path / "out" / "made_probes.jsonl").exists()


def test_no_study_row_is_made_of_a_held_out_sentence_or_in_the_words_of_a_probe(tmp_path):
    """Sentences that are not held out are studied, in other words than their probe's."""
    rows = handbook.rows()
    made = make_probes(rows, lambda probes: [""] * len(probes)).probes
    asked = Questions(made, None, ())
    model, tokenizer = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer()
    rows = [row.__class__(**{**vars(row), "columns": {"train_attention": (1.0,) * len(row)}}) for row in rows]

    def studied(*limits):
        method, _ = Study(forms=("blank", "what", "statement")).prepare(
            Context(model, tokenizer, rows, tmp_path, 0, *limits)
        )
        return [one_line(tokenizer.decode(text.input_ids)) for text in method.texts]

    def front(probe):
        return one_line(probe.evidence)[:20]

    every, limited = studied(), studied(asked.prompts(), asked.held_out())
    held = [probe for probe in made if probe.held_out]
    assert all(any(front(probe) in line for line in every) for probe in held)
    assert not any(front(probe) in line for probe in held for line in limited)
    reworded = [one_line(probe.prompt) for probe in made if probe.made != "front"]
    assert len(reworded) > 15
    assert not any(prompt in line for prompt in reworded for line in limited)
    free = [probe for probe in made if not probe.held_out]
    assert sum(any(front(probe) in line for line in limited) for probe in free) > 0.9 * len(free)


def test_with_patience_held_out_probes_of_both_roles_decide(things, tmp_path):
    train = {"epochs": None, "steps": 4, "patience": 1}
    run = run_of(tmp_path, things, pages="1", probes={"learn": "made", "every": 2}, train=train)
    assert (run.probes.held_out_share, run.corpus.held_out_share) == (0.2, 0.05)
    held = {probe.role for probe in material(run).questions.probes if probe.held_out}
    assert held == {"learn", "retain"}
    learn(run)
    kept = json.loads((run.output / "summary.json").read_text())["arms"]["plain"]["kept"]["step"]
    assert kept in (2, 4)


def test_each_probe_names_the_rows_that_hold_its_evidence_and_training_the_rows_that_it_read(whole):
    """Two updates of four rows read less than the corpus: probes of the other rows were never read."""
    run, summary, _ = whole
    rows = {row.row_id: row for row in read_rows(run.output / "rows.parquet")}
    evidence = json.loads((run.output / "evidence.json").read_text())
    probes = {probe.id: probe for probe in read_probes(run.output / "made_probes.jsonl", "learn")}
    assert evidence.keys() == probes.keys()
    for name, found in evidence.items():
        assert [probes[name].evidence in one_line(rows[row].text) for row in found] == [True]
    lines = [json.loads(line) for line in (run.output / "metrics.jsonl").read_text().splitlines()]
    read = {row for line in lines for row in line["first_read"]}
    assert len(read) == 8 < len(rows)
    unread = [name for name, found in evidence.items() if not read & set(found) and not probes[name].held_out]
    assert summary["arms"]["plain"]["not_learned"]["never read"] == len(unread) > 0


def test_evidence_of_written_probes_is_looked_for(tmp_path):
    rows = handbook.rows()
    first, second = rows[0].text.split(". ")[1:3]
    both = f"{one_line(first)}. {one_line(second)}."
    probes = [
        Probe("one", "learn", "cloze", "a", "b", evidence=f"{one_line(first)}."),
        Probe("both", "learn", "cloze", "a", "b", evidence=both),
        Probe("absent", "learn", "cloze", "a", "b", evidence="Nobody ever wrote this."),
        Probe("none", "learn", "cloze", "a", "b"),
        Probe("old", "retain", "cloze", "a", "b", evidence=both),
    ]
    found = rows_with_evidence(probes, rows)
    assert found == {"one": [rows[0].row_id], "both": [rows[0].row_id], "absent": []}
