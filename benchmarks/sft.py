"""An update as `foci learn` makes it, beside TRL's SFTTrainer (no activation checkpointing) and Transformers' Trainer.

The same rows and the same adapter; every token is learned (98 % for foci, since it refuses a column of 1 alone). Times
are taken in turns in one process. The peak is that of a whole process with one update, as the system counts it; on a
GPU, that of its allocated memory.
"""

import importlib
import importlib.util
import multiprocessing
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, Trainer, TrainingArguments

from benchmarks.lean import MOST
from benchmarks.side_by_side import Allowance, Result, Spent, device
from benchmarks.sparse import Column
from benchmarks.step import theirs as transformers_trainer
from benchmarks.training import MakeTrainer, Setting, smollm2, timed_steps
from foci import FocusTrainer, Plan
from foci.focus import Row
from foci.learn.fitting import CPU_TOKENS
from foci.models.locate import folder_of
from foci.system import machine
from foci.training.passes import Passes

TIME_GOAL, MEMORY_GOAL = 0.45, 0.33
SHARED = (
    "output_dir", "num_train_epochs", "per_device_train_batch_size", "learning_rate", "bf16", "train_sampling_strategy",
    "save_strategy", "logging_steps", "report_to", "disable_tqdm", "dataloader_pin_memory", "use_cpu",
)  # fmt: skip
"""Arguments that TRL takes over from the other sides; the rest are its own."""
TRAINER, TRL = "trainer", "trl"
SIDES = ("foci", TRAINER, TRL)
NAMES = {TRAINER: "transformers.Trainer", TRL: "TRL's SFTTrainer, no checkpointing"}
NEEDED = {"foci": 0, TRAINER: 10, TRL: 12}
"""GiB that a process may take with 16 rows of 256 tokens."""


def run(allowed: Allowance) -> list[Result]:
    """Times of short rows, and times and peaks of long ones; a row for each rival."""
    batch, length = (4, 64) if allowed.quick else (16, 256)
    return [*short_rows(smollm2(8, 136), allowed.part(0.3)), *long_rows(batch, length, allowed.part(0.7))]


def unable(side: str) -> str:
    """Why a side cannot be measured here, in words; empty if it can."""
    if side == TRL and not importlib.util.find_spec("trl"):
        return "not installed: pip install 'foci[bench]'"
    free = machine.free_bytes(device())
    if free is not None and free < NEEDED[side] * 2**30:
        return f"not measured: takes up to {NEEDED[side]} GiB of memory, {free / 2**30:.0f} are free"
    return ""


def short_rows(setting: Setting, allowed: Allowance) -> list[Result]:
    """All sides in one process."""
    most, warmup = 6, 1
    rows = setting.rows(most + warmup, MOST)
    why = {side: unable(side) for side in SIDES}
    makers = {side: maker(side, rows) for side in SIDES if not why[side]}
    spent, losses = timed_steps(setting, makers, allowed.turns(most, warmup))
    first = {side: round(values[0], 3) for side, values in losses.items()}
    assert max(first.values()) < 1.02 * min(first.values()), f"other losses of the same rows: {first}"
    return beside(f"time per update, all tokens: {setting.name}", spent, why, TIME_GOAL)


def long_rows(batch: int, length: int, allowed: Allowance) -> list[Result]:
    """Each side in processes of its own, in turns, since the memory of all at once is more than a laptop has."""
    turns, why, done = allowed.turns(3, warmup=0), {side: unable(side) for side in SIDES}, 0
    made: dict[str, list[Updates]] = {side: [] for side in SIDES if not why[side]}
    while turns.another(done):
        for side, updates in made.items():
            updates.append(fresh(side, batch, length))
        done += 1
    name = next(iter(made.values()))[0].name
    spent = {side: [one.spent for one in updates] for side, updates in made.items()}
    what = f"peak memory of a process, one update: {name}"
    return [
        *beside(f"time per update, all tokens: {name}", spent, why, TIME_GOAL),
        *(
            Result.of(what, "MiB", *([one.peak for one in made[s]] for s in ("foci", side)), rival=NAMES[side],
                      goal=MEMORY_GOAL if side == TRL else None)
            if not why[side]
            else Result(what, NAMES[side], "MiB", goal=MEMORY_GOAL if side == TRL else None, missing=why[side])
            for side in (TRAINER, TRL)
        ),
    ]  # fmt: skip


def beside(what: str, spent: dict[str, list[Spent]], why: dict[str, str], goal: float) -> list[Result]:
    """A row for each rival, also for one that could not be measured."""
    goals = {TRAINER: None, TRL: goal}
    return [
        Result.timed(what, spent["foci"], spent[side], rival=NAMES[side], goal=goals[side])
        if not why[side]
        else Result(what, NAMES[side], "s", goal=goals[side], missing=why[side])
        for side in (TRAINER, TRL)
    ]


@dataclass(frozen=True)
class Updates:
    """What an update took in a process of its own, and the most MiB of that process."""

    name: str
    spent: Spent
    peak: float


def fresh(side: str, batch: int, length: int) -> Updates:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_updates, side, batch, length).result()


def _updates(side: str, batch: int, length: int) -> Updates:
    """An update of rows of 16 tokens as a warm-up, and the one that counts."""
    setting = smollm2(batch, length)
    make = maker(side, setting.rows(2, MOST, short=1))
    machine.reset_peak()
    spent, _ = timed_steps(setting, {side: make}, Allowance(0.0).turns(1), copies=False)
    peak = machine.peak_mib()
    assert peak is not None, "this machine does not tell the peak memory of a process"
    return Updates(setting.name, spent[side][0], peak)


def maker(side: str, rows: Sequence[Row]) -> MakeTrainer:
    return {"foci": foci, TRAINER: transformers_trainer, TRL: trl}[side](rows)


def foci(rows: Sequence[Row]) -> MakeTrainer:
    """As `foci learn` trains an adapter: lean passes, on a CPU in parts."""
    passes = Passes(lean=True, tokens=None if torch.cuda.is_available() else CPU_TOKENS)

    def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        return FocusTrainer(model, arguments, plan=Plan([Column()]), train_dataset=rows, passes=passes)

    return make


def trl(rows: Sequence[Row]) -> MakeTrainer:
    """SFTTrainer with its own arguments but for those that all sides share; activation checkpointing is off."""
    library: Any = importlib.import_module("trl")
    datasets: Any = importlib.import_module("datasets")
    datasets.disable_progress_bars()
    given = datasets.Dataset.from_list([{"input_ids": list(row.input_ids)} for row in rows])

    def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        taken = {name: getattr(arguments, name) for name in SHARED}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = library.SFTConfig(**taken, gradient_checkpointing=False)
            tokenizer = AutoTokenizer.from_pretrained(folder_of("smollm2-135m", trust_remote_code=False))
            return library.SFTTrainer(model, settings, train_dataset=given, processing_class=tokenizer)

    return make
