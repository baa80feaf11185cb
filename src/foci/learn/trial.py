"""A short training of one arm, thrown away: its methods are prepared on a few rows, and two updates of them are made.

What a method costs is then in what is measured: a teacher that is asked in every update, guided heads, old rows, pulls.
The rate is 0, so that no weight moves.
"""

import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foci import models
from foci.config.run import Run
from foci.config.train import TrainConfig
from foci.focus import Context, Method, MixesRows, Plan, Prepares, Row
from foci.learn.arguments import arguments, learner
from foci.learn.fitting import passes_of
from foci.learn.inputs import Material
from foci.learn.memory import Memory, memory_of
from foci.learn.offline import prepare
from foci.methods import build
from foci.models.gguf import without_bars
from foci.models.quantised import count
from foci.rows import chosen, lengths_of, names_of
from foci.system import machine
from foci.training.dataset import MixedDataset, mixed
from foci.training.sharing import shares
from foci.training.trainer import FocusTrainer

FEW = 2
"""Rows on which methods are prepared first: what does not grow with the rows takes about this long."""
FOLDERS = ("scores", "shared")
"""Settings of methods that name a folder in which they keep files for other runs."""
UPDATES = 2
"""Updates of a trial; the first one warms up."""


@dataclass(frozen=True)
class Offline:
    """The cost of an arm's offline stages: seconds and bytes of files, at once and for each row.

    `peak`: the most bytes of the process meanwhile. `untried`: why the methods could not be prepared on a few rows;
    then they are not in what is measured.
    """

    fixed: float = 0.0
    seconds_per_row: float = 0.0
    fixed_bytes: float = 0.0
    bytes_per_row: float = 0.0
    peak: int = 0
    untried: str = ""

    def plus(self, stage: "Offline") -> "Offline":
        """Returns what this and one more stage take, one after the other; the peak and `untried` stay those of this."""
        return replace(
            self,
            fixed=self.fixed + stage.fixed,
            seconds_per_row=self.seconds_per_row + stage.seconds_per_row,
            fixed_bytes=self.fixed_bytes + stage.fixed_bytes,
            bytes_per_row=self.bytes_per_row + stage.bytes_per_row,
        )

    def seconds(self, rows: int) -> float:
        """Returns the seconds for so many rows."""
        return self.fixed + self.seconds_per_row * rows

    def bytes(self, rows: int) -> int:
        """Returns the bytes of files for so many rows."""
        return round(self.fixed_bytes + self.bytes_per_row * rows)


@dataclass(frozen=True)
class Trial:
    """The cost of one arm: seconds for each token of an update, memory, offline stages.

    `old_length` is the mean length, in tokens, of the rows that methods mix in; 0 where they mix in none.
    """

    seconds_per_token: float
    old_length: float
    memory: Memory
    offline: Offline
    parameters: int
    trained: int
    left_out: str


@dataclass(frozen=True)
class Setting:
    """The things that trials have in common.

    These are the run and its inputs, how many processes share the rows of an update, and the bytes that the program
    takes beside the model.
    """

    run: Run
    material: Material
    processes: int
    program: int


@without_bars()
def tried(setting: Setting, arm: str, loaded: models.Loaded) -> tuple[Trial, models.LanguageModel]:
    """Tries an arm; returns what it takes, and the model that it trained."""
    run, processes = setting.run, setting.processes
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with tempfile.TemporaryDirectory() as name:
        rows = _longest(run.train, setting.material.rows, processes)
        offline, plan, read = _prepared(setting, arm, loaded, rows, Path(name))
        added, plan = bool(plan.of(MixesRows)), _mixing(plan, run.seed)
        model = learner(run, loaded.model, plan)
        machine.release_memory()  # as an arm does
        with machine.Peak() as peak:
            trainer = _trainer(run, loaded, model, plan, read, Path(name))
            trainer.add_callback(clock := _Clock(trainer))
            trainer.train()
        data = trainer.train_dataset
        old = [len(row) for some in data.old for row in some] if isinstance(data, MixedDataset) else []
        if added and not old:
            old = [len(row) for row in read]
    model.zero_grad(set_to_none=True)
    memory = memory_of(model, loaded.compute_dtype).with_peak(peak.bytes, setting.program)
    if processes > 1:
        each = memory_of(model, loaded.compute_dtype, processes=processes, sharded=run.train.fsdp)
        memory = memory.of_processes(each)
    return Trial(
        seconds_per_token=clock.seconds / max(1, clock.tokens),
        old_length=sum(old) / max(1, len(old)),
        memory=memory,
        offline=offline,
        parameters=sum(map(count, model.parameters())),
        trained=sum(count(p) for p in model.parameters() if p.requires_grad),
        left_out=models.coverage(model).words(),
    ), model


def _trainer(
    run: Run, loaded: models.Loaded, model: Any, plan: Plan, rows: Sequence[Row], folder: Path
) -> FocusTrainer:
    """Returns the trainer of two updates of all rows; it writes nothing into `folder`."""
    passes, _ = passes_of(run.train, model, int(lengths_of(rows).max()), loaded.compute_dtype)
    trainer = FocusTrainer(
        model,
        arguments(_settings(run.train, len(rows)), run.seed, folder, loaded.compute_dtype),
        plan=plan,
        train_dataset=rows,
        goes_on=run.continues is not None,
        passes=passes,
        processing_class=loaded.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def untouched(model: models.LanguageModel, run: Run) -> models.LanguageModel | None:
    """Returns the model that a trial trained, without its adapter; None where it has to be loaded anew."""
    gc.collect()  # the trainer and the model hold each other
    if run.continues is not None:
        return None
    if not isinstance(model, PeftModel):
        return model
    if {settings.peft_type.value for settings in model.peft_config.values()} != {"LORA"}:
        return None  # others change the weights beside them
    with suppress(AttributeError, NotImplementedError, ValueError):
        return model.unload()  # type: ignore[no-any-return, operator]
    return None


def _longest(train: TrainConfig, rows: Sequence[Row], processes: int) -> Sequence[Row]:
    """Returns the longest rows, as many as one process reads at once for an update; one has a marked answer, if any."""
    each, _ = shares(train.batch_size * train.accumulation, train.batch_size, processes)
    order = lengths_of(rows).argsort(kind="stable")
    some = order[-each:]
    if "answer" in names_of(rows) and not any(_has_answer(rows[int(n)]) for n in some):
        marked = next((n for n in order[::-1] if _has_answer(rows[int(n)])), some[0])
        some[0] = marked
    return chosen(rows, some)


def _has_answer(row: Row) -> bool:
    return any(row.columns.get("answer", ())[1:])


def _mixing(plan: Plan, seed: int) -> Plan:
    """Returns the plan, without the methods that mix in old rows where two epochs of these few rows get none."""
    mixing = plan.of(MixesRows)
    if not mixing or any(len(mixed(plan, seed, epoch)) for epoch in range(UPDATES)):
        return plan
    return Plan([method for method in plan.methods if method not in mixing], normalise=plan.normalise)


def _prepared(
    setting: Setting, arm: str, loaded: models.Loaded, rows: Sequence[Row], folder: Path
) -> tuple[Offline, Plan, Sequence[Row]]:
    """Returns what the offline stages take, the plan that plays, and its rows. Methods keep their files in `folder`."""
    specs = [_without_folders(spec) for spec in setting.run.arms[arm]]
    plan = Plan([build(spec) for spec in specs], normalise=setting.run.train.normalise)
    if not plan.of(Prepares):  # type: ignore[type-abstract]
        return Offline(), plan, rows
    asked, counts = setting.material.questions, (min(FEW, len(rows) - 1), len(rows))
    context = Context(loaded.model, loaded.tokenizer, rows, folder, setting.run.seed, asked.prompts(), asked.held_out())
    playing, whole, few = list[Method](), Offline(), rows[: counts[0]]
    try:
        with machine.Peak() as peak:
            for number, method in enumerate(plan.methods):
                own = replace(context, rows=rows, folder=folder / str(number))
                stage, played, few, rows = _stage(method, own, few, counts)
                playing.append(played)
                whole = whole.plus(stage)
    except (ValueError, ImportError) as error:
        known = Plan([m for m in plan.methods if not isinstance(m, Prepares)], normalise=plan.normalise)
        return Offline(untried=str(error)), known, context.rows
    return replace(whole, peak=peak.bytes), Plan(playing, normalise=plan.normalise), rows


def _stage(
    method: Method, context: Context, few: Sequence[Row], counts: tuple[int, int]
) -> tuple[Offline, Method, Sequence[Row], Sequence[Row]]:
    """Prepares a method on few rows and on all; returns what that takes, what plays, and the few and all rows after it.

    `counts`: the rows of the corpus that the few are, and that all are. A method whose offline stage does not grow with
    them is prepared once. No few rows stand for rows that an offline stage could not be prepared on.
    """

    def timed(rows: Sequence[Row], name: str) -> tuple[Method, Sequence[Row], float, float]:
        begin, folder = time.perf_counter(), context.folder / name
        plan, read = prepare(Plan([method]), replace(context, rows=rows, folder=folder))
        return plan.methods[0], read, time.perf_counter() - begin, float(_written(folder))

    if not isinstance(method, Prepares):
        return Offline(), method, few, context.rows
    first = None
    if few and method.grows:
        try:
            _, few, *first = timed(few, "few")
        except ValueError:  # such as of a method that two rows are too few for
            few = []
    played, read, *whole = timed(context.rows, "all")
    if not method.grows:
        return Offline(fixed=whole[0], fixed_bytes=whole[1]), played, few, read
    if first is None:
        return Offline(0.0, whole[0] / counts[1], 0.0, whole[1] / counts[1]), played, few, read
    (seconds, each), (fixed, each_bytes) = (
        _line(counts[0], a, counts[1], b) for a, b in zip(first, whole, strict=True)
    )
    return Offline(seconds, each, fixed, each_bytes), played, few, read


def _without_folders(spec: Any) -> Any:
    """Returns a method as a run file has it, without the folders that it names: a trial leaves those alone.

    >>> _without_folders({"contrast": {"scores": "out/scores", "share": 0.5}})
    {'contrast': {'share': 0.5}}
    """
    if not isinstance(spec, Mapping):
        return spec
    return {name: _without_folders(value) for name, value in spec.items() if name not in FOLDERS}


def _written(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _line(few: int, first: float | int, rows: int, whole: float | int) -> tuple[float, float]:
    """Returns what is there without any row, and what each row adds; neither is below 0.

    >>> _line(2, 5.0, 4, 6.0)
    (4.0, 0.5)
    """
    slope = max(0.0, whole - first) / (rows - few)
    return max(0.0, first - few * slope), slope


def _settings(train: TrainConfig, rows: int) -> TrainConfig:
    """Returns the settings of a trial: two updates of so many rows at a rate of 0, in one process."""
    changed = {
        "steps": UPDATES, "epochs": None, "copies": 1, "batch_size": rows, "accumulation": 1, "learning_rate": 0.0,
        "schedule": "constant", "warmup": 0.0, "report_to": (), "fsdp": False,
    }  # fmt: skip
    return train.model_copy(update=changed)


class _Clock(TrainerCallback):
    """Measures the seconds and the tokens of all updates but the first."""

    def __init__(self, trainer: FocusTrainer) -> None:
        self.trainer, self.seconds, self.tokens, self.begin = trainer, 0.0, 0, 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step > 1:
            self.seconds += time.perf_counter() - self.begin
            self.tokens += self.trainer.update.tokens
        self.begin = time.perf_counter()
