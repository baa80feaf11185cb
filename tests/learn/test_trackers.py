"""What trackers are given: a run per arm, names that group well, the last probing within it, and nothing unasked."""

import json
import sqlite3
import struct

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

import runs
from foci.config.run import load_run
from foci.config.trackers import check_trackers
from foci.config.train import TrainConfig
from foci.learn import trackers as tracking
from foci.learn.run import learn
from foci.learn.trackers import MEASURED, Trackers

ARMS = {"plain": [], "held": [{"lwf": {"on": "all"}}]}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run of two arms that logs to trackio and tensorboard: (its folder, its summary, trackio's rows by run)."""
    pytest.importorskip("trackio")
    pytest.importorskip("tensorboardX")
    folder = tmp_path_factory.mktemp("tracked")
    import trackio.sqlite_storage
    import trackio.utils

    with pytest.MonkeyPatch.context() as patch:
        for module in (trackio.utils, trackio.sqlite_storage):
            patch.setattr(module, "TRACKIO_DIR", folder / "trackio")
        patch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
        file = runs.run_file(folder, runs.material(folder), arms=ARMS, train={"report_to": ["trackio", "tensorboard"]})
        summary = learn(load_run(file))
    return folder / "out", summary, of_trackio(folder / "trackio" / "small.db")


def of_trackio(file):
    rows = {}
    with sqlite3.connect(file) as base:
        for name, step, values in base.execute("select run_name, step, metrics from metrics order by id"):
            rows.setdefault(name, []).append({"step": step} | json.loads(values))
    return rows


def of_tensorboard(file):
    """{tag: {step: value}} of an event file, read without the writer's own code: records of length, check and bytes."""
    from tensorboardX.proto.event_pb2 import Event

    found, raw, place = {}, file.read_bytes(), 0
    while place < len(raw):
        (length,) = struct.unpack("<Q", raw[place : place + 8])
        event = Event.FromString(raw[place + 12 : place + 12 + length])
        place += 12 + length + 4
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def by_step(rows, name):
    """{update: value}, at the steps at which trackio draws them."""
    return {row["step"]: row[name] for row in rows if name in row}


def test_each_arm_is_one_run_of_trackio(tracked):
    _, _, found = tracked
    assert [name.rsplit("-", 2)[0] for name in found] == ["small-plain-seed3", "small-held-seed3"]


@pytest.mark.parametrize("arm", ARMS)
def test_trackio_holds_losses_of_every_update_and_every_probing(tracked, arm):
    _, summary, found = tracked
    (rows,) = (rows for name, rows in found.items() if f"-{arm}-" in name)
    assert set(by_step(rows, "train/loss")) == set(range(1, 10))
    names = {name for row in rows for name in row} - {"step"}
    assert not [name for name in names if not name.startswith(("train/", "eval/"))]
    assert "train/eval/learned" not in names
    learned = {point["step"]: point["learned_whole"] for point in summary["arms"][arm]["path"]}
    assert list(learned) == [0, 3, 6, 9]  # the untouched model, on the way, and after training has ended
    assert by_step(rows, "eval/learned") == learned
    bits = {point["step"]: point["bits_per_byte"] for point in summary["arms"][arm]["path"]}
    assert by_step(rows, "eval/bits_per_byte") == pytest.approx(bits)


@pytest.mark.parametrize("arm", ARMS)
def test_tensorboard_holds_the_same(tracked, arm):
    folder, summary, _ = tracked
    (file,) = (folder / "arms" / arm / "tensorboard").rglob("events.*")
    assert file.parent.name.startswith(f"small-{arm}-seed3-")
    found = of_tensorboard(file)
    assert set(found["train/loss"]) == set(range(1, 10))
    for name, shown in MEASURED.items():
        wanted = {point["step"]: point[name] for point in summary["arms"][arm]["path"] if point.get(name) is not None}
        assert found[shown.replace("eval_", "eval/")] == pytest.approx(wanted), name


def test_kl_is_that_of_the_loss(tracked):
    """The loss of the arm that imitates is NLL + KL, and its first update starts at the teacher: KL 0."""
    _, _, found = tracked
    plain, held = ({step: row for row in rows if "train/loss" in row for step in [row["train/global_step"]]}
                   for rows in found.values())  # fmt: skip
    assert not any("train/kl" in row for row in plain.values())
    assert held[1]["train/kl"] == pytest.approx(0, abs=1e-6)
    assert held[9]["train/kl"] > 0.01
    assert held[1]["train/loss"] == pytest.approx(plain[1]["train/loss"], abs=1e-5)


def test_a_resumed_arm_keeps_its_name_and_a_new_one_gets_another(tmp_path, monkeypatch):
    from foci.system.run_folder import ArmFolder

    run = load_run(runs.run_file(tmp_path, runs.material(tmp_path)))
    first = tracking.run_name(run, "plain", ArmFolder(tmp_path / "a"))
    assert tracking.run_name(run, "plain", ArmFolder(tmp_path / "a")) == first
    assert first.startswith("small-plain-seed3-20")


def test_nothing_is_logged_unless_asked(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a tracker was made")

    monkeypatch.setattr(tracking.Trackers, "_log", lambda self, logs, step: refuse() if self.open else None)
    monkeypatch.setattr(tracking, "run_name", refuse)
    file = runs.run_file(tmp_path, runs.material(tmp_path), arms={"plain": []}, train={"steps": 1, "epochs": None})
    learn(load_run(file))
    assert not list((tmp_path / "out").glob("*tensorboard*"))
    assert not (tmp_path / "out" / "trackers.json").exists()


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_read(tmp_path, capsys, monkeypatch):
    from foci.config import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    file = runs.run_file(tmp_path, runs.material(tmp_path))
    words = runs.refused(["learn", file, "train.report_to=[tensorboard]"], capsys)
    assert "train.report_to names tensorboard" in words
    assert "pip install tensorboard" in words
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="pip install mlflow"):
        check_trackers(["mlflow"])


@pytest.mark.parametrize(
    ("given", "read"),
    [([], ()), ("none", ()), ("trackio", ("trackio",)), (["wandb", "mlflow", "wandb"], ("wandb", "mlflow"))],
)
def test_one_name_or_a_list(given, read):
    config = TrainConfig(report_to=given)
    assert config.report_to == read
    assert TrainConfig(**config.model_dump(mode="json")) == config


def test_a_wrong_name_is_told_with_the_right_one(tmp_path, capsys):
    file = runs.run_file(tmp_path, runs.material(tmp_path))
    assert "did you mean 'tensorboard'?" in runs.refused(["learn", file, "train.report_to=[tensorbord]"], capsys)


class Broken:
    """A tracker that fails at a given call."""

    def __init__(self, at):
        self.at = at

    def call(self, name):
        if name == self.at:
            raise ConnectionError("the server\nis gone")

    def on_train_begin(self, *_, **__):
        self.call("begin")

    def on_log(self, *_, **__):
        self.call("log")

    def on_train_end(self, *_, **__):
        self.call("end")


@pytest.fixture
def broken(monkeypatch, tmp_path):
    def made(at):
        monkeypatch.setattr(tracking, "check_trackers", lambda names: None)
        monkeypatch.setattr(tracking, "get_reporting_integration_callbacks", lambda names: [lambda: Broken(at)])
        said = []
        return Trackers(["trackio"], tmp_path, {}, dict, said.append), said

    return made


@pytest.fixture
def begin(tmp_path):
    """What a Trainer gives its callbacks."""
    return (
        TrainingArguments(str(tmp_path), report_to="none", use_cpu=True),
        TrainerState(global_step=4),
        TrainerControl(),
    )


def test_a_tracker_that_cannot_begin_ends_the_run_with_words(broken, begin):
    trackers, _ = broken("begin")
    with pytest.raises(ValueError, match=r"trackio could not begin a run \(ConnectionError: the server is gone\)"):
        trackers.on_train_begin(*begin)


@pytest.mark.parametrize("at", ["log", "end"])
def test_a_tracker_that_fails_later_is_left_out(broken, begin, at):
    trackers, said = broken(at)
    trackers.on_train_begin(*begin)
    trackers.on_log(*begin, {"loss": 1.0})
    trackers.measured(4, {"learned": 0.5})
    trackers.close()
    assert said == ["trackio failed (ConnectionError: the server is gone); the run goes on without it"]


def test_names_of_measurements_group_as_eval():
    from transformers.integrations.integration_utils import rewrite_logs

    assert {name.partition("/")[0] for name in rewrite_logs(dict.fromkeys(MEASURED.values(), 1.0))} == {"eval"}
