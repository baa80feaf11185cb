"""`foci watch`: what it says of a run that waits, trains, was stopped or is done, and that it ends with the run."""

import fcntl
import io
import json
import re
import shutil
from contextlib import contextmanager

import pytest
import yaml
from rich.console import Console

import runs
from fake_run import STEPS, write_run
from foci.system.files import LOCK
from foci.system.folder import is_held, locked
from foci.watch.run import picture, sentence, watch
from foci.watch.state import _updates, read_state


@contextmanager
def held(folder):
    """The folder as a process holds it that works in it."""
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def run(tmp_path):
    """A run of three arms: the first is done, the second has made 80 of 120 updates, the third waits."""
    folder = write_run(tmp_path / "run", arms=("first", "second"))
    settings = yaml.safe_load((folder / "run.yaml").read_text())
    settings |= {"train": {"epochs": 6, "steps": None, "patience": None}}
    settings["arms"]["third"] = []
    (folder / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "summary.json").unlink()
    (folder / "arms" / "first" / "arm.json").write_text("{}")
    return folder


def shown(state, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(picture(state))
    return console.file.getvalue()


def test_the_state_of_each_arm(run):
    with held(run):
        first, second, third = read_state(run).arms
    assert (first.stage, second.stage, third.stage) == ("done", "trains", "waits")
    assert (second.update, second.updates) == (STEPS[-1], 120)  # 80 updates are 4 of 6 epochs
    lines = [json.loads(line) for line in (run / "arms/second/metrics.jsonl").read_text().splitlines()]
    assert second.loss == pytest.approx(sum(line["loss"] for line in lines[-8:]) / 8)
    assert second.left == pytest.approx(40 * 0.9)
    assert second.asked == STEPS[-1]
    assert second.measured["learned_whole"]["now"] > second.measured["learned_whole"]["before"]
    assert third.measured["learned_whole"] == {"before": None, "now": None}


def test_the_checkpoint_says_how_many_updates(run):
    folder = run / "arms" / "second" / "checkpoints" / "step-80"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"max_steps": 99}')
    with held(run):
        assert read_state(run).arms[1].updates == 99
    (folder / "trainer_state.json").write_text('{"max_st')
    with held(run):
        assert read_state(run).arms[1].updates == 120


def test_a_small_corpus_is_read_until_the_fewest_updates(tmp_path):
    last = {"step": 2, "epoch": 1.0}
    assert _updates(last, {"epochs": 4, "least_steps": 60}, tmp_path) == 60
    assert _updates(last, {"epochs": 4, "least_steps": 0}, tmp_path) == 8
    assert _updates(last, {"epochs": None, "least_steps": 0}, tmp_path) == 2
    assert _updates(last, {"epochs": None, "steps": 5, "least_steps": 60}, tmp_path) == 5


def test_without_a_process_the_run_was_stopped(run, capsys):
    assert read_state(run).arms[1].stage == "stopped"
    with runs._argv(["watch", run]), pytest.raises(SystemExit) as stop:
        runs.main.main()
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert f"go on with: foci learn {run} --resume" in said
    assert "second  stopped after update 80" in said


def test_the_picture_fits_in_80_columns(run):
    with held(run):
        state = read_state(run)
    said = shown(state)
    assert max(map(len, said.splitlines())) <= 80
    assert "80/120" in said
    assert "second update 80 of 120, loss" in said
    assert "about 36 s left" in " ".join(said.split())
    narrow = shown(state, 40)
    assert max(map(len, narrow.splitlines())) <= 40


def test_hostile_names_do_not_steer_the_terminal(tmp_path):
    folder = write_run(tmp_path / "run", name="\x1b[31m[bold]\u202e", arms=("[x]\x1b[2J",))
    with held(folder):
        said = shown(read_state(folder), 200)
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "[bold]" in said
    assert "[x]" in said


def test_a_run_that_has_read_nothing_yet(tmp_path):
    (tmp_path / "run.yaml").write_text("name: new\narms: {plain: [], other: []}\n")
    with held(tmp_path):
        state = read_state(tmp_path)
        assert [arm.stage for arm in state.arms] == ["begins", "waits"]
        assert "the corpus is read" in shown(state)


@pytest.mark.parametrize("text", ["name: [a", "- a", "train: [1]\narms: {plain: []}"])
def test_a_damaged_run_file_is_no_reason_to_end(run, text):
    (run / "run.yaml").write_text(text)
    assert "stopped" in shown(read_state(run))


def test_it_ends_when_the_run_ends(run):
    """Three looks: the arm trains, it is done, the process has ended."""
    seen = io.StringIO()

    def wait(seconds):
        assert seconds == 7
        for arm in ("second", "third"):
            (run / "arms" / arm).mkdir(exist_ok=True)
            (run / "arms" / arm / "arm.json").write_text("{}")
        holder.close()

    holder = (run / LOCK).open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert watch(run, Console(file=seen, width=80), 7, wait).done
    assert [sentence(arm)[:4] for arm in read_state(run).arms] == ["done"] * 3
    assert re.search(r"second  update 80 of 120, .*\n.*second  done", seen.getvalue(), re.DOTALL)


def test_a_live_picture_is_refreshed_and_left(run):
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    looks = []

    def wait(_):
        looks.append(1)
        if len(looks) == 2:
            holder.close()

    holder = (run / LOCK).open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert not watch(run, console, 1, wait).done
    assert len(looks) == 2
    assert "second stopped after update 80" in console.file.getvalue()


def test_looking_changes_nothing_and_hinders_nobody(tmp_path):
    assert not is_held(tmp_path)
    assert not list(tmp_path.iterdir())
    with locked(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with (tmp_path / LOCK).open("rb") as look:  # a look that takes its time
        fcntl.flock(look, fcntl.LOCK_SH)
        with pytest.raises(FileExistsError, match="another process"), locked(tmp_path):
            pass
        assert not is_held(tmp_path), "two may look at once"


@pytest.mark.parametrize(
    ("name", "words"),
    [("nothere", "run nothere: 'nothere' is not in"), ("empty", "empty is not a run: expected run.yaml"),
     ("page.txt", "page.txt: no such folder; expected the output folder of a `foci learn` run")],
)  # fmt: skip
def test_what_is_no_run_is_refused(tmp_path, monkeypatch, capsys, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.txt").write_text("A page.")
    assert words in runs.refused(["watch", name], capsys)


def test_a_real_run_is_watched_to_its_end(tmp_path, capsys):
    file = runs.run_file(tmp_path, runs.material(tmp_path))
    child = runs.start(["learn", file], tmp_path, slow=0.1)
    child.until((tmp_path / "out" / "run.yaml").is_file)
    said = runs.told(["watch", tmp_path / "out", "--every", "0.1"], capsys)
    assert child.wait() == 0
    updates = [int(number) for number in re.findall(r"plain  update (\d+) of 9", said)]
    assert len(updates) > 2, said
    assert updates == sorted(updates)
    assert "oracle  done, 9 updates" in said
    assert f"report: {tmp_path / 'out' / 'report.html'}" in said
    shutil.rmtree(tmp_path / "out")
