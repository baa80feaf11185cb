"""Short trainings of tiny models that tests compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import small
import tiny
from foci import FocusTrainer, Plan
from foci.focus import Row
from foci.training.dataset import Collator


class Recorder(TrainerCallback):
    """Keeps every logged loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 5,
    }
    return TrainingArguments(str(folder), **(settings | changes))


def model(name: str = "llama", *, lora: bool = False, dropout: float = 0.0) -> nn.Module:
    built = tiny.build(name)
    if dropout:
        for module in built.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = dropout
    return tiny.lora(built) if lora else built


def trained(
    folder: Path, rows: Sequence[Row], methods: Sequence[Any] = (), *, start: nn.Module | None = None,
    normalise: str = "update", resume: Any = None, **changes: Any,
) -> tuple[nn.Module, list[float]]:  # fmt: skip
    """(the model after training, its logged losses) under a plan."""
    recorder = Recorder()
    trainer = FocusTrainer(
        start if start is not None else model(),
        arguments(folder, **changes),
        plan=Plan(methods, normalise=normalise),
        train_dataset=list(rows),
        callbacks=[recorder],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model, recorder.losses


def train_dropped(folder: Path, changes: dict[str, Any]) -> None:
    """Trains a tiny model on rows that lose tokens, for tests that call it in a process of its own."""
    trained(folder, small.rows(), [small.Dropped()], **changes)


def trained_plainly(
    folder: Path, rows: Sequence[Row], *, start: nn.Module | None = None, **changes: Any
) -> tuple[nn.Module, list[float]]:
    """The same with `transformers.Trainer` itself."""

    def collate(batch: list[Row]) -> dict[str, Any]:
        made = Collator(tiny.PAD, labelled=True)(batch)
        return {name: made[name] for name in ("input_ids", "attention_mask", "labels")}

    recorder = Recorder()
    trainer = Trainer(
        start if start is not None else model(),
        arguments(folder, **changes),
        train_dataset=list(rows),
        data_collator=collate,
        callbacks=[recorder],
    )
    trainer.train()
    return trainer.model, recorder.losses


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    """Equal weights, bit for bit or within an absolute tolerance."""
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")
