"""Trainings in two processes under DeepSpeed, beside those of one process without it; test_deepspeed.py compares them.

Everything is in float32, which is what DeepSpeed keeps its weights in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

import small
import tiny
from foci import FocusTrainer, Plan
from foci.system import processes
from foci.training.passes import WHOLE, Passes
from foci.training.sharing import shares, with_rows
from law_of_processes import Ranked, stored
from training import Recorder, arguments

UPDATES = 6
ADAMW = {"optim": "adamw_torch", "learning_rate": 1e-2, "weight_decay": 0.1, "adam_epsilon": 1e-4}
"""A large epsilon, since AdamW makes large steps of gradients that are nearly zero, also of what rounding leaves."""


def configuration(stage: int = 2, **changes: Any) -> dict[str, Any]:
    """What a person would write for one ZeRO stage; None takes a setting out."""
    found = {
        "zero_optimization": {"stage": stage}, "train_micro_batch_size_per_gpu": "auto", "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto", **changes,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def most() -> list[Any]:
    """A method of each role but pulls, which are refused."""
    return [
        small.Column(), small.ByPosition(), small.Dropped(), small.LookTwoWays(), small.Imitating(),
        small.Scaled({"layers.0": 0.5, "embeddings": 2.0}), small.Old(small.rows(5, seed=9)),
    ]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model, a plan, and how it is trained; `rows` are those of an update, at most `batch` in a micro-batch."""

    model: Callable[[], nn.Module]
    methods: Callable[[], Sequence[Any]]
    normalise: str = "update"
    passes: Passes = WHOLE
    changes: Mapping[str, Any] | None = None
    rows: int = 4
    batch: int = 4
    stage: int = 2


def llama() -> nn.Module:
    return tiny.build("llama")


CASES: dict[str, Case] = {
    "every role": Case(llama, most),
    "every role, stage 1, AdamW": Case(llama, most, changes=ADAMW, stage=1),
    "accumulated, AdamW": Case(llama, lambda: [Ranked(), small.Imitating()], changes=ADAMW, rows=5, batch=2),
    "clipped, warmed up": Case(
        llama, lambda: [small.Column()], normalise="row", changes={"max_grad_norm": 0.1, "warmup_steps": 3}
    ),
    "tied head, live losses": Case(lambda: tiny.build("llama-tied"), lambda: [small.Hard(), Ranked()]),
    "frozen layer, stored teacher": Case(llama, lambda: [Ranked(), stored(), small.Scaled({"layers.0": 0.0})]),
    "adapter, lean": Case(
        lambda: tiny.lora(llama()), lambda: [small.Column(), small.Imitating()], passes=Passes(lean=True), batch=1
    ),
    "rows that are read apart": Case(lambda: tiny.stretched("longrope"), lambda: [small.Column()]),
    "packed, in parts": Case(llama, lambda: [small.Column()], passes=Passes(tokens=30, packs=48)),
}


def settings(case: Case, folder: Path, **more: Any) -> TrainingArguments:
    """The arguments of this process; of one without DeepSpeed where it is alone."""
    count = processes.size()
    batch, micro_batches = shares(case.rows, case.batch, count) if count > 1 else (case.rows, 1)
    together = {"deepspeed": configuration(case.stage)} if count > 1 else {}
    found = arguments(
        folder, per_device_train_batch_size=batch, gradient_accumulation_steps=micro_batches, max_steps=UPDATES,
        **({"optim": "sgd", "learning_rate": 0.1} | together | dict(case.changes or {}) | more),
    )  # fmt: skip
    return with_rows(found, case.rows)


def trained(
    name: str, folder: Path, *, resume: Path | None = None, **more: Any
) -> tuple[dict[str, Tensor], list[float]]:
    """(the weights, the logged losses) after the updates of one case."""
    case, recorder = CASES[name], Recorder()
    trainer = FocusTrainer(
        case.model(), settings(case, folder, **more), plan=Plan(case.methods(), normalise=case.normalise),
        train_dataset=small.rows(11, shortest=5, longest=24), passes=case.passes, callbacks=[recorder],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    assert (type(trainer.model_wrapped).__name__ == "DeepSpeedEngine") == (processes.size() > 1)
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters()}, recorder.losses


def train_all(folder: Path) -> None:
    """Trains every case in the processes of a launcher, and goes on from a checkpoint; the first writes the weights."""
    with processes.together():
        for name in CASES:
            found = trained(name, folder / "run")
            if processes.is_first():
                torch.save(found, folder / f"{name}.pt")
        written = folder / "written"
        trained("accumulated, AdamW", written, save_strategy="steps", save_steps=4)
        found = trained("accumulated, AdamW", folder / "gone on", resume=written / "step-4")
        if processes.is_first():
            torch.save(found, folder / "gone on.pt")
