"""`foci advise`: halving rounds of trials of a tiny model, the time that it keeps, the run file that it writes."""

import json
from pathlib import Path

import pytest

import runs
import tiny
from foci.advise import run as advising
from foci.advise import trials
from foci.advise.results import Result, behind, ranked
from foci.advise.trials import Cost, Rounds, Trial, planned
from foci.config.run import load_run
from foci.probes import read_answers
from foci.system.run_folder import RunFolder
from foci.training.non_finite import NonFinite
from paths import HELPERS

FEW = {
    "plain": Trial((), 1e-3, "plain"),
    "fast": Trial((), 2e-2, "plain, fast"),
    "still": Trial((), 1e-9, "plain, hardly moving"),
}


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Three cheap trials in two rounds; the current directory has a tiny model and ten pages of the handbook."""
    monkeypatch.setattr(trials, "TRIALS", FEW)
    monkeypatch.setattr(advising, "TRIALS", FEW)
    monkeypatch.setattr(trials, "ROUNDS", ((3, 2), (2,)))
    monkeypatch.setattr(trials, "READINGS", 4)
    monkeypatch.setattr(advising, "FACTS", 4)
    monkeypatch.setattr(advising, "ROWS", 60)
    original = advising.suite_of
    monkeypatch.setattr(advising, "suite_of", lambda base, folder, number, arms, updates: original(
        base, folder, number, ["plain"] if arms == ["focused"] else arms, updates))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    tiny.save_model(tmp_path / "tiny")
    (tmp_path / "pages").mkdir()
    for file in sorted((HELPERS / "handbook").glob("*.md"))[:10]:
        (tmp_path / "pages" / file.name).write_text(file.read_text())
    return ["advise", "pages", "--model", "tiny", "corpus.max_length=128", "model.dtype=float32"]


def test_it_halves_says_how_sure_it_is_and_writes_a_run_file(few, capsys):
    told = runs.told([*few, "--minutes", 10], capsys)
    out = Path("out/pages-advice")
    plan = json.loads((out / "plan.json").read_text())
    assert plan["trials"] == [3, 2]
    assert plan["updates"][1] == 2 * plan["updates"][0]
    cells = [sorted(p.name for p in (out / f"round-{n}" / "cells").iterdir()) for n in (1, 2)]
    assert cells[0] == ["fast", "plain", "still"]
    first = {}
    for name in cells[0]:
        folder = RunFolder(out / "round-1" / "cells" / name / "seed-0", 1).arm(name)
        first[name] = Result.of(read_answers(folder.probes(plan["updates"][0])), 0.0)
        assert len(first[name].learned) >= 6, "held-out questions"
    assert cells[1] == sorted(ranked({name: first[name] for name in FEW})[:2]), "the better half goes on"
    run = load_run(out / "advised.yaml")
    slice_of = json.loads((out / "slice.json").read_text())
    assert run.train.steps == -(-plan["updates"][1] * slice_of["of"] // slice_of["rows"])
    assert run.train.learning_rate in {trial.rate for trial in FEW.values()}
    assert run.corpus.path == ("pages",)
    assert run.model.dtype == "float32", "all settings of the model that are no defaults"
    text = (out / "advised.yaml").read_text()
    assert "behind by" in text
    assert ("cannot be told apart" in text) or ("is better than all others" in text)
    assert "run file: out/pages-advice/advised.yaml" in told
    spent = json.loads((out / "times.json").read_text())
    again = runs.told([*few, "--minutes", 10], capsys)
    assert load_run(out / "advised.yaml") == run
    trained = {name: seconds for name, seconds in spent.items() if "start" not in name}
    now = json.loads((out / "times.json").read_text())
    assert {name: now[name] for name in trained} == trained, "finished trials are not run again"
    assert "round 2" in again
    assert "other settings" in runs.refused([*few, "seed=1"], capsys)


def test_the_time_is_kept(few, capsys, monkeypatch):
    """Where the first trials take longer than the estimate said, no further one begins that would not fit."""
    monkeypatch.setattr(advising, "_plan", lambda made, base, rows: Rounds((3, 2), (2, 4)))
    spent = list[float]()
    monkeypatch.setattr(advising.Advice, "timed", lambda self, name, act: (
        act(), self.times.update({name: 25.0}), spent.append(self.spent()),
        advising.write_json(self.path / "times.json", self.times)))  # fmt: skip
    assert "1 of the trials were finished in 0.9 minutes" in runs.refused([*few, "--minutes", 0.9], capsys)
    runs.told([*few, "--minutes", 1.3], capsys)
    advised = (Path("out/pages-advice") / "advised.yaml").read_text()
    assert "Only 2 of the 3 trials of this round fitted into the time." in advised
    told = runs.told([*few, "--minutes", 1.7], capsys)
    assert spent[-1] <= 102
    assert max(spent) == 100.0, "the start and three trials, and no start of another round"
    assert "the time is up in round 2" in told
    assert "Round 1" in (Path("out/pages-advice") / "advised.yaml").read_text()


def test_rounds_by_hand():
    assert planned(Cost(1.0, 10.0, 5.0), 600, 1000) == Rounds((8, 4, 2), (16, 32, 64))
    assert planned(Cost(1.0, 10.0, 5.0), 300, 1000).trials == (6, 3)
    assert planned(Cost(1.0, 0.0, 0.0), 10_000, 8).updates == (8, 16, 32), "no more than READINGS of a row or LEAST"
    with pytest.raises(ValueError, match=r"0\.2 minutes is too short.*--minutes 1 or more"):
        planned(Cost(1.0, 10.0, 5.0), 10, 1000)


def test_intervals_by_hand():
    names = [str(n) for n in range(50)]
    best, worst = (Result(dict.fromkeys(names, value), dict.fromkeys(names, 1.0), 1.0) for value in (0.75, 0.25))
    assert behind(best, worst, 0) == (0.5, 0.5, 0.5), "every question says the same"
    half = Result({name: float(n % 2) for n, name in enumerate(names)}, dict.fromkeys(names, 1.0), 1.0)
    gap, low, high = behind(half, Result({n: 1 - v for n, v in half.learned.items()}, half.kept, 1.0), 0)
    assert gap == 0
    assert low < -0.2 < 0.2 < high
    assert ranked({"a": worst, "b": best, "c": best}) == ["b", "c", "a"]


def test_what_cannot_be_advised_is_refused(few, capsys):
    assert "is too short" in runs.refused([*few, "--minutes", 0.01], capsys)
    Path("short.txt").write_text("Nothing to ask here.")
    words = ["advise", "short.txt", "--model", "tiny", "corpus.max_length=96"]
    assert "expected at least 6" in runs.refused(words, capsys)
    assert "chooses plan, rate and length itself" in runs.refused([*few, "train.epochs=3"], capsys)
    assert "a number above 0" in runs.refused([*few, "--minutes", 0], capsys)
    assert "is not in" in runs.refused(["advise", "absent"], capsys)
    assert "which text" in runs.refused(["advise", "corpus.max_length=96"], capsys)
    Path("mine").mkdir()
    Path("mine/a").write_text("x")
    assert "holds something that is no advice" in runs.refused([*few, "--out", "mine"], capsys)


def test_how_the_text_is_read_and_the_seed_are_those_of_the_advised_run(few, capsys):
    """A field of another name is read by the trials, and both stand in the run file."""
    texts = [file.read_text() for file in sorted(Path("pages").iterdir())]
    runs.write_lines(Path("pages.jsonl"), [{"body": text} for text in texts])
    told = [word if word != "pages" else "pages.jsonl" for word in few]
    runs.told([*told, "corpus.text_field=body", "corpus.max_bad=0.1", "seed=3", "--minutes", 10], capsys)
    run = load_run("out/pages-advice/advised.yaml")
    assert (run.corpus.text_field, run.corpus.max_bad, run.seed) == ("body", 0.1, 3)
    words = runs.refused([*told, "corpus.text_field=body", "seed=3", "corpus.max_length=64"], capsys)
    assert "other settings" in words


def fails(monkeypatch, *words):
    """Lets the trials fail whose folder has all of these words in its path."""
    original = advising.run_cell

    def failing(one, console):
        if all(word in str(one.path) for word in words):
            raise NonFinite("the loss is NaN")
        return original(one, console)

    monkeypatch.setattr(advising, "run_cell", failing)


def test_a_trial_that_fails_is_told_and_the_others_go_on(few, capsys, monkeypatch):
    fails(monkeypatch, "fast")
    told = runs.told([*few, "--minutes", 10], capsys)
    assert "fast" in told
    assert "failed: the loss is NaN" in told
    assert "fitted into the time" not in told
    assert load_run("out/pages-advice/advised.yaml").train.learning_rate in (1e-3, 1e-9)


def test_a_trial_that_failed_in_an_earlier_round_did_fit_into_the_time(few, capsys, monkeypatch):
    fails(monkeypatch, "round-1", "fast")
    monkeypatch.setattr(advising, "_plan", lambda made, base, rows: Rounds((3, 3), (2, 4)))
    told = runs.told([*few, "--minutes", 10], capsys)
    assert "Round 2" in told
    assert "of this round" not in told.partition("Round 2")[2].partition("The best")[0]


def test_a_trial_that_fails_in_the_last_round_is_told_as_such(few, capsys, monkeypatch):
    fails(monkeypatch, "fast")
    monkeypatch.setattr(advising, "_plan", lambda made, base, rows: Rounds((3,), (2,)))
    told = runs.told([*few, "--minutes", 10], capsys)
    assert "of the 3 trials of this round failed." in told
