"""How long an update of an arm takes, measured once by a short training that is thrown away."""

import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from foci import models
from foci.config.run import Run, dump_run
from foci.focus import Context, Row
from foci.learn.arguments import arguments, learner
from foci.learn.offline import plan_of, prepare
from foci.system.files import read_json, write_json
from foci.training.trainer import FocusTrainer

UPDATES = 12
"""Updates of a pilot. The first third only warms up."""


class _Stopwatch(TrainerCallback):
    """Notes the time after every update, and ends training after `UPDATES`."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.times.append(time.perf_counter())
        control.should_training_stop = len(self.times) > UPDATES


def seconds_per_update(run: Run, rows: Sequence[Row], folder: Path) -> float:
    """Median seconds of an update of a run with one arm. Kept in `folder`, so that it is measured once."""
    kept = folder / "pace.json"
    known = read_json(kept)
    if known is None or known["run"] != dump_run(run):
        known = {"run": dump_run(run), "seconds": _measured(run, rows, folder / "scores")}
        write_json(kept, known)
    return float(known["seconds"])


def _measured(run: Run, rows: Sequence[Row], scores: Path) -> float:
    (arm,) = run.arms
    loaded = models.load(run.model.name, dtype=run.model.dtype, trust_remote_code=run.model.trust_remote_code)
    plan, rows = prepare(plan_of(run, arm), Context(loaded.model, loaded.tokenizer, rows, scores, run.seed))
    watch = _Stopwatch()
    with tempfile.TemporaryDirectory() as nowhere:
        trainer = FocusTrainer(
            learner(run, loaded.model, plan),
            arguments(run.train, run.seed, Path(nowhere), loaded.compute_dtype),
            plan=plan,
            train_dataset=rows,
            copies=run.train.copies,
            processing_class=loaded.tokenizer,
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    took = [after - before for before, after in pairwise(watch.times)]
    return float(median(took[len(took) // 3 :]))
