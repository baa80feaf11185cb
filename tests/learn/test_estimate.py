"""The estimate of a run counts all that a run does: baseline, training, probings, offline stages, saving."""

from dataclasses import dataclass, replace

import pytest
import torch

import runs
import tiny
from foci import models
from foci.bench.config import load_suite
from foci.config.run import load_run
from foci.focus import Context, Prepares, Row
from foci.learn import estimate as module
from foci.learn import trial
from foci.learn.callbacks import probings_before_the_last
from foci.learn.disk import Disk
from foci.learn.estimate import ArmCost, Estimate, _measures, estimate
from foci.learn.inputs import material
from foci.learn.memory import Memory
from foci.learn.questions import is_to_learn
from foci.learn.run import learn
from foci.methods.lwf import Lwf
from foci.methods.oracle import Oracle
from foci.methods.replay import Replay
from foci.training.trainer import FocusTrainer

NONE = Memory(0, 0, 0, 0)
DISK = Disk(model=50, adapter=7, checkpoint=20, checkpoints=2, rest=1, scores=4)
ARM = ArmCost(
    updates=1, tokens=1, seconds=100.0, offline_seconds=7.0, memory=NONE, offline_peak=0, disk=DISK, trained=1,
    left_out="", untried="",
)  # fmt: skip
PARTS = Estimate(
    parameters=1, rows=1, tokens_per_epoch=1, probe_seconds=10.0, probe_peak=5, probings=3,
    save_seconds=5.0, shared_disk=9, arms={"plain": replace(ARM, offline_seconds=0.0), "more": ARM},
)  # fmt: skip


def test_the_whole_is_the_sum_of_its_parts():
    """The baseline once; of each of two arms 100 s of training, three probings, 5 s of saving; 7 s offline for one."""
    assert PARTS.seconds == 10 + 2 * (100 + 3 * 10 + 5) + 7
    assert replace(PARTS, arms={"plain": ARM}).seconds == 10 + 100 + 30 + 5 + 7
    assert PARTS.disk == 9 + 2 * (50 + 7 + 2 * 20 + 1 + 4)


def test_the_peak_is_the_most_at_any_time():
    assert PARTS.peak == 5
    arms = {"plain": replace(ARM, memory=replace(NONE, gradients=3, program=4)), "more": replace(ARM, offline_peak=6)}
    assert replace(PARTS, arms=arms).peak == 7
    assert replace(PARTS, arms={**arms, "more": replace(ARM, offline_peak=8)}).peak == 8


def updates(cost: Estimate) -> dict[str, int]:
    return {name: arm.updates for name, arm in cost.arms.items()}


def test_rows_that_methods_mix_in_are_updates(tmp_path):
    """10 texts in batches of 4 are 3 updates an epoch; with 10 study rows and 5 old ones 25 rows, 7 updates."""
    things = runs.material(tmp_path)
    arms = {"plain": [], "more": ["study", {"replay": {"ratio": 0.5}}]}
    run = load_run(runs.run_file(tmp_path, things, arms=arms))
    assert run.train.batch_size == 4
    assert updates(estimate(run, material(run))) == {"plain": 3 * 3, "more": 3 * 7}


def test_an_arm_without_a_length_of_its_own_trains_the_least_updates(tmp_path):
    """10 texts in batches of 4 are 3 updates an epoch; with 10 held ones 5. One epoch is fewer than 4 updates."""
    things = runs.material(tmp_path)
    arms = {"plain": [], "more": [{"replay": {"path": "encyclopedia", "anchor": "kl"}}]}
    train = {"epochs": 1, "least_steps": 4, "checkpoint_every": None}
    run = load_run(runs.run_file(tmp_path, things, arms=arms, train=train, probes={"every": None}))
    assert updates(estimate(run, material(run))) == {"plain": 4, "more": 5}
    assert {name: arm["steps"] for name, arm in learn(run)["arms"].items()} == {"plain": 4, "more": 5}


def test_the_files_are_told_before_the_model_is_asked(tmp_path):
    things, order = runs.material(tmp_path), []
    run = load_run(runs.run_file(tmp_path, things))
    made = material(run, tell=order.append, begin=lambda: order.append("begin"))
    assert order[0] == "begin"
    assert order[1].startswith("file ")
    assert str(things.corpus) in order[2]
    assert not any(str(things.corpus) in line for line in made.told()[:1])


def test_the_measures_are_timed_by_parts_of_known_size(tmp_path):
    things = runs.material(tmp_path)
    run = load_run(runs.run_file(tmp_path, things))
    questions = replace(material(run).questions, text="a" * 5000)
    parts = list(_measures(questions))
    assert parts[0][1] == 2.5
    assert [len(part.text or "") for part, _ in parts] == [2000, 0, 0]
    tokens = sum(map(len, questions.rows))
    assert parts[1][1] * len(parts[1][0].rows[0]) == tokens
    assert all(is_to_learn(probe) for probe in parts[2][0].probes)
    assert parts[2][1] == 1


def test_every_part_of_a_run_is_measured(tmp_path):
    things = runs.material(tmp_path)
    run = load_run(runs.run_file(tmp_path, things, arms={"plain": [], "held": [{"lwf": {"on": "all"}}]}))
    made = material(run)
    before = [parameter.clone() for parameter in made.loaded.model.parameters()]
    cost = estimate(run, made)
    assert (updates(cost), cost.probings) == ({"plain": 9, "held": 9}, 3)  # after updates 3, 6 and 9
    plain, held = cost.arms["plain"], cost.arms["held"]
    assert min(plain.seconds, cost.probe_seconds, cost.save_seconds, held.offline_seconds) > 0
    assert (plain.offline_seconds, plain.untried, held.untried) == (0, "", "")
    assert min(plain.memory.activations, plain.memory.gradients, cost.probe_peak, held.offline_peak) > 0
    weights = [p for n, p in made.loaded.model.named_parameters() if "lora" not in n]
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def test_a_method_is_in_what_is_measured(tmp_path):
    """A live teacher without an adapter is a second model, which the update of plain has not."""
    things = runs.material(tmp_path)
    arms = {"plain": [], "held": [{"lwf": {"on": "all", "teacher": "live"}}]}
    run, trainers = load_run(runs.run_file(tmp_path, things, arms=arms, adapter=None)), []
    with pytest.MonkeyPatch.context() as patched:
        own = FocusTrainer.train
        patched.setattr(FocusTrainer, "train", lambda self: (trainers.append(self), own(self))[1])
        estimate(run, material(run))
    assert [trainer._start is None for trainer in trainers] == [True, False]
    assert [trainer.state.global_step for trainer in trainers] == [2, 2]


def test_methods_that_need_more_rows_are_named(tmp_path):
    things = runs.material(tmp_path)
    run = load_run(runs.run_file(tmp_path, things, arms={"misled": [{"lwf": {"on": "all", "teacher": "misled"}}]},
                                 train={"batch_size": 1}))  # fmt: skip
    assert "reads another row before each, got 1 row" in estimate(run, material(run)).arms["misled"].untried


def test_what_a_whole_run_can_do_a_trial_of_two_updates_does_not_refuse(tmp_path):
    """RecAdam's t0 of 5 updates, no marked answer on the longest rows, and less than one old row for those tried."""
    things = runs.material(tmp_path)
    short, long = runs.documents(), [{"text": f"{text} Here is more about it, {n}."} for n, (text, _, _) in
                                     enumerate(runs.FACTS)]  # fmt: skip
    runs.write_lines(things.corpus, [*short, *long])
    old = runs.write_lines(tmp_path / "old.jsonl", [{"text": "It is in the north of France."}])
    arms = {"rec": [{"rec_adam": {"t0": 5, "gamma": 1.0}}], "marked": ["oracle"],
            "few": [{"replay": {"path": str(old), "ratio": 0.05}}]}  # fmt: skip
    file = runs.run_file(tmp_path, things, arms=arms, train={"epochs": 3, "batch_size": 4, "learning_rate": 0.02})
    run = load_run(file)
    found = estimate(run, material(run)).arms
    assert [cost.untried for cost in found.values()] == ["", "", ""]
    assert found["few"].tokens > found["marked"].tokens


@dataclass(frozen=True)
class Slow(Prepares):
    """A method whose offline stage takes 3 seconds of a clock that stands still else, and so much for each row."""

    each: float
    clock: list[float]
    grows: bool = True
    needs: int = 1

    def prepare(self, context):
        if len(context.rows) < self.needs:
            raise ValueError("too few rows")
        self.clock.append(self.clock[-1] + 3 + self.each * len(context.rows))
        (context.folder / "kept").write_bytes(b"x" * (100 + 10 * len(context.rows)))
        return Oracle(), context.rows


@pytest.mark.parametrize(
    ("method", "seconds", "bytes_of_50", "prepared"),
    [
        ({"each": 0.5}, 3 + 0.5 * 50, 100 + 500, 2),
        ({"each": 0.0, "grows": False}, 3, 100 + 40, 1),  # the 40 of four rows, taken as they are
        ({"each": 0.5, "needs": 3}, 50 * (3 + 0.5 * 4) / 4, 50 * 140 / 4, 1),  # two rows are too few
    ],
)
def test_an_offline_stage_is_measured_by_what_is_there_and_what_rows_add(
    tmp_path, monkeypatch, method, seconds, bytes_of_50, prepared
):
    clock = [0.0]
    monkeypatch.setattr(trial.time, "perf_counter", lambda: clock[-1])
    rows = [Row(f"row-{n}", (n, n + 1)) for n in range(4)]
    context = Context(tiny.build("llama-tied"), tiny.tokenizer(), rows, tmp_path)
    stage, played, *_ = trial._stage(Slow(clock=clock, **method), context, rows[:2], (2, 4))
    assert isinstance(played, Oracle)
    assert (stage.seconds(50), stage.bytes(50), len(clock) - 1) == (seconds, bytes_of_50, prepared)


def test_old_text_is_asked_about_once(tmp_path, monkeypatch):
    """It takes the same for any number of new rows: 38 s each time in the demo's arm."""
    things, asked = runs.material(tmp_path), []
    for kind in (Replay, Lwf):
        own = kind.prepare
        monkeypatch.setattr(
            kind, "prepare", lambda self, context, own=own: (asked.append(type(self).__name__), own(self, context))[1]
        )
    arms = {"a": [{"lwf": {"on": "all"}}, {"replay": {"path": "encyclopedia", "anchor": "kl", "samples": 3}}]}
    run = load_run(runs.run_file(tmp_path, things, arms=arms))
    assert estimate(run, material(run)).arms["a"].offline_seconds > 0
    assert asked == ["Lwf", "Lwf", "Replay"]


def test_folders_that_methods_name_are_left_alone(tmp_path):
    """A trial's few rows would make what is kept there stale for the run that comes after."""
    things, kept = runs.material(tmp_path), tmp_path / "kept"
    tiny.save_model(tmp_path / "large", seed=5)
    contrast = {"large": str(tmp_path / "large"), "dtype": "float32", "scores": str(kept)}
    run = load_run(runs.run_file(tmp_path, things, arms={"a": [{"contrast": contrast}]}))
    found = estimate(run, material(run)).arms["a"]
    assert found.untried == ""
    assert found.disk.scores > 0
    assert not kept.exists()


def test_arms_whose_methods_differ_in_numbers_alone_are_tried_once(tmp_path):
    things, kinds = runs.material(tmp_path), []
    arms = {"a": [{"oracle": {"floor": 0.1}}], "b": [{"oracle": {"floor": 0.2}}], "c": []}
    arms |= {"d": [{"study": {"forms": ["blank"]}}], "e": ["study"]}
    run = load_run(runs.run_file(tmp_path, things, arms=arms))
    with pytest.MonkeyPatch.context() as patched:
        own = module.tried
        patched.setattr(module, "tried", lambda *given: (kinds.append(given[1]), own(*given))[1])
        assert list(estimate(run, material(run)).arms) == ["a", "b", "c", "d", "e"]
    assert kinds == ["a", "c", "d", "e"]


@pytest.mark.parametrize("adapter", [{"type": "lora", "r": 4}, None], ids=["lora", "all weights"])
def test_the_folder_takes_what_was_said(tmp_path, adapter):
    """Its weights and checkpoints to 10 %, and the whole to 20 %."""
    things = runs.material(tmp_path)
    run = load_run(runs.run_file(tmp_path, things, adapter=adapter, arms={"plain": [], "more": ["study"]}))
    cost = estimate(run, material(run))
    learn(run)

    def size(folder):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())

    plain, own = cost.arms["plain"].disk, run.output / "arms" / "plain"
    assert size(own / "model") == pytest.approx(plain.model, rel=0.1)
    assert size(own / "adapter") == pytest.approx(plain.adapter, rel=0.1)
    assert len(list((own / "checkpoints").iterdir())) == plain.checkpoints
    assert size(own / "checkpoints") == pytest.approx(plain.checkpoint * plain.checkpoints, rel=0.1)
    assert (run.output / "rows.parquet").stat().st_size <= cost.shared_disk
    whole = sum(size(folder) for folder in run.output.iterdir() if folder.is_dir() and not folder.is_symlink())
    whole += sum(file.stat().st_size for file in run.output.iterdir() if file.is_file())
    assert whole == pytest.approx(cost.disk, rel=0.2)


def test_an_arm_of_a_suite_costs_what_its_own_settings_do(tmp_path, capsys):
    """As cells do: an adapter of its own, all weights, and half of the rows in an update."""
    things = runs.material(tmp_path)
    arms = {"plain": [], "mlp": [], "osf": [], "full": [], "again": [], "small": []}
    overrides = {
        "mlp": {"adapter": {"targets": "mlp"}}, "osf": {"adapter": {"type": "osf"}}, "full": {"adapter": None},
        "again": {"learning_rate": 1e-3}, "small": {"batch_size": 2},
    }  # fmt: skip
    file = runs.run_file(tmp_path, things, arms=arms, overrides=overrides, seeds=[0])
    text = file.read_text().replace("seed: 3\n", "")
    file.write_text(text)
    suite = load_suite(file)
    cost = estimate(suite, material(suite))
    model = models.load(suite.model.name, device="cpu").model
    whole = sum(p.numel() for p in model.parameters())
    lora = sum(p.numel() for p in models.add_adapter(model, suite.adapter).parameters() if p.requires_grad)
    trained = {name: arm.trained for name, arm in cost.arms.items()}
    assert (trained["plain"], trained["again"], trained["full"]) == (lora, lora, whole)
    assert 0 < trained["mlp"] < lora
    assert trained["osf"] not in (lora, whole)
    assert cost.arms["again"].memory == cost.arms["plain"].memory  # tried once
    assert updates(cost) == {**dict.fromkeys(arms, 9), "small": 15}
    assert cost.arms["full"].disk.adapter == 0 < cost.arms["plain"].disk.adapter
    said = " ".join(runs.told(["check", file], capsys).split())
    assert f"{lora:,} (plain)" in said
    assert f"{whole:,} (full)" in said


def test_probings_are_counted_as_they_are_made(tmp_path):
    """With patience a run asks twenty times; `probes.every` says otherwise, and without both it asks at its end."""
    things = runs.material(tmp_path)

    def before_the_last(updates, **changes):
        return probings_before_the_last(load_run(runs.run_file(tmp_path, things, **changes)), updates)

    assert before_the_last(40, probes={"every": None}) == 0
    assert before_the_last(40, probes={"every": 10}) == 3
    patience = {"patience": 2, "epochs": 50}
    assert before_the_last(40, probes={"every": None, "held_out_share": 0.2}, train=patience) == 19
    assert before_the_last(7, probes={"every": None, "held_out_share": 0.2}, train=patience) == 6
