"""`foci init`: the run file that it writes is read by the strict loader, and every comment in it is true."""

import re
from pathlib import Path

import pytest

import runs
from foci.cli import init
from foci.cli.runs import checked_run
from foci.config.commented import run_file
from foci.config.run import FOCUSED, Run, fields, load_run

QUESTION = '{"kind": "cloze", "prompt": "Ada was born in", "answer": "Bern"}\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory, with a folder of texts."""
    monkeypatch.chdir(tmp_path)
    texts = tmp_path / "my texts"
    texts.mkdir()
    (texts / "a.md").write_text("Ada was born in Bern.")
    (texts / "b.txt").write_text("She lives in Rome.")
    return tmp_path


def test_it_writes_what_foci_learn_would_do_without_a_file(place, capsys):
    told = runs.told(["init", "my texts"], capsys)
    assert "wrote my-texts.yaml" in told
    assert "foci learn my-texts.yaml" in told
    assert load_run("my-texts.yaml") == Run.of_flags("my texts")


def test_flags_stand_in_the_file(place, capsys):
    Path("q.jsonl").write_text(QUESTION)
    runs.told(["init", "my texts", "--file", "x.yaml", "--epochs", 7, "--questions", "q.jsonl", "--no-compare"], capsys)
    run = load_run("x.yaml")
    assert (run.train.epochs, run.probes.learn, dict(run.arms)) == (7, "q.jsonl", {"focused": FOCUSED})
    assert run.train.least_steps == 0, "a length that is named is kept"


def test_every_comment_is_true(place, capsys):
    """Each meaning is that of the key below it; each key in a comment has its default there, and loads when used."""
    runs.told(["init", "my texts"], capsys)
    text, known, section = Path("my-texts.yaml").read_text(), fields(), ""
    lines = text.splitlines()
    assert "foci could read 2 files there" in text
    checked, waiting = [], []
    for number, line in enumerate(lines):
        if found := re.fullmatch(r"(\w+):(.*)", line):
            section = found[1]
        elif found := re.fullmatch(r"  (# )?(\w+): (.+)", line):
            name = f"{section}.{found[2]}"
            if name not in known:
                continue
            assert lines[number - 1] == f"  # {known[name].description}", name
            checked.append(name)
            if found[1]:
                waiting.append((number, name))
    assert {"corpus.path", "train.epochs", "probes.learn", "corpus.max_length"} <= set(checked)
    assert len(waiting) >= 5
    for number, name in waiting:
        used = [*lines[:number], lines[number].replace("# ", "", 1), *lines[number + 1 :]]
        Path("used.yaml").write_text("\n".join(used))
        assert load_run("used.yaml") == load_run("my-texts.yaml"), f"{name} is its default"


def test_questions_are_asked_on_a_terminal_alone(place, capsys, monkeypatch):
    answers = iter(["nowhere/model.gguf", "smollm2-135m", "", "none", "0", "6", "n"])
    asked = []

    def prompt(words: str, default: object) -> object:
        asked.append(words)
        return next(answers) or default

    monkeypatch.setattr(init.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(init.typer, "prompt", prompt)
    monkeypatch.setattr(init.typer, "confirm", lambda words, default: False)
    runs.told(["init", "my texts", "--questions", "made"], capsys)
    run = load_run("my-texts.yaml")
    assert (run.model.name, run.train.epochs, list(run.arms)) == ("smollm2-135m", 4, ["focused"])
    assert len(asked) == 3, "a wrong model is asked for again; what a flag says is not asked"


@pytest.mark.parametrize("name", ['it\'s #1: "x"', "日本 {a}", "a: - b"])
def test_any_name_is_read_back(place, capsys, name):
    (place / name).mkdir()
    (place / name / "a.txt").write_text("text")
    runs.told(["init", name, "--file", "odd.yaml"], capsys)
    assert load_run("odd.yaml").corpus.path == (name,)


def test_what_cannot_be_is_refused_and_nothing_replaced(place, capsys):
    assert "is not in" in runs.refused(["init", "absent"], capsys)
    (place / "empty").mkdir()
    assert "holds no file that foci reads, got nothing" in runs.refused(["init", "empty"], capsys)
    (place / "empty" / "a.exe").write_text("x")
    assert "got .exe" in runs.refused(["init", "empty"], capsys)
    assert "ends in .yaml" in runs.refused(["init", "my texts", "--file", "x.txt"], capsys)
    assert "there is no folder" in runs.refused(["init", "my texts", "--file", "no/x.yaml"], capsys)
    assert "questions q.jsonl" in runs.refused(["init", "my texts", "--questions", "q.jsonl"], capsys)
    assert not list(place.glob("*.yaml"))
    Path("my-texts.yaml").write_text("mine")
    assert "is never replaced" in runs.refused(["init", "my texts"], capsys)
    assert Path("my-texts.yaml").read_text() == "mine"


def test_sections_without_a_set_key_are_left_out():
    assert "model:" not in run_file({"corpus.path": "x"}, [])


def test_a_named_default_is_as_long_as_on_the_command_line(place, capsys):
    runs.told(["init", "my texts", "--epochs", 4], capsys)
    assert load_run("my-texts.yaml") == Run.of_flags("my texts", overrides=["train.epochs=4"])


def test_questions_are_a_probe_file(place, capsys):
    assert "expected a probe file" in runs.refused(["init", "my texts", "--questions", "my texts/a.md"], capsys)
    assert not Path("my-texts.yaml").exists()


def test_a_run_file_among_the_texts_is_no_run_that_was_begun(place, capsys):
    runs.told(["init", "my texts", "--file", "my texts/run.yaml"], capsys)
    assert "name the file itself: my texts/run.yaml" in runs.refused(["learn", "my texts"], capsys)


def test_names_beyond_the_basic_plane_are_kept(place, capsys):
    runs.told(["init", "my texts"], capsys)
    assert checked_run("my-texts.yaml", [], None, None, "out/📚").output == Path("out/📚")


def test_texts_and_changes_come_in_any_order(place):
    Path("more.txt").write_text("Ada is a baker.")
    run = checked_run("train.epochs=2", ["my texts", "seed=3", "more.txt"], None, None, None)
    assert (run.corpus.path, run.train.epochs, run.seed) == (("my texts", "more.txt"), 2, 3)
    with pytest.raises(ValueError, match="without spaces"):
        checked_run("my texts", ["train.epochs", "=", "2"], None, None, None)
