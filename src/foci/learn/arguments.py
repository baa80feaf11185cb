"""Makes the model to train and the Trainer's arguments from a run file."""

import math
from pathlib import Path

import torch
from torch import nn
from transformers import TrainingArguments, set_seed

from foci import models
from foci.config.run import Run
from foci.config.train import TrainConfig
from foci.focus import Plan
from foci.learn.finished import finished
from foci.models.forward import device_of
from foci.models.loading import load_weights
from foci.models.saved_adapter import going_on
from foci.system import processes
from foci.training.plan import block_scales
from foci.training.sharing import shares, with_rows


def learner(run: Run, model: models.LanguageModel, plan: Plan | None = None) -> models.LanguageModel:
    """Returns the model to train: with a new adapter, the same for every arm, or with all weights free.

    Blocks that the plan freezes get no adapter. A run that goes on trains the adapter of the run before, upon the
    untouched model; `model`, into which that adapter is merged, is used up.
    """
    scales = block_scales(plan or Plan(), model)
    set_seed(run.seed)
    if run.adapter is None:
        return model
    if (before := finished(run)) is not None:
        device = device_of(model)
        nn.Module.to(model, "meta")
        untouched = load_weights(
            run.model.name, trust_remote_code=run.model.trust_remote_code, on_disk=run.model.on_disk
        )
        return going_on(untouched.to(device).eval(), before.model, str(before.model))
    adapted = models.add_adapter(model, run.adapter)
    return models.without_adapters(adapted, {block for block, scale in scales.items() if not scale})


def arguments(
    train: TrainConfig, seed: int, output: Path, dtype: torch.dtype, tracked: tuple[str, str] | None = None
) -> TrainingArguments:
    """Returns the Trainer's arguments for the settings of a run file; `dtype` is the type to compute in.

    `tracked`: the project and the name of the run in trackers. Processes share the rows of an update.
    """
    names = {} if tracked is None else {"project": tracked[0], "run_name": tracked[1]}
    batch, accumulation = shares(train.batch_size * train.accumulation, train.batch_size, processes.size())
    schedule = {"constant": "constant_with_warmup"}.get(train.schedule, train.schedule)
    settings = TrainingArguments(
        output_dir=str(output),
        seed=seed,
        num_train_epochs=train.epochs or 1,
        max_steps=train.steps or -1,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=dtype == torch.bfloat16,
        train_sampling_strategy="group_by_length" if train.group_by_length else "random",
        save_strategy="no",
        save_total_limit=train.keep_checkpoints,
        logging_steps=1,
        report_to="none",  # trackers stay open longer than training: learn.trackers
        **names,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    if settings.n_gpu > 1:
        settings._n_gpu = 1  # one process uses one device
    return with_rows(settings, train.batch_size * train.accumulation)


def updates_of_epoch(rows: int, train: TrainConfig) -> int:
    """Returns the updates of one pass over so many rows, copies counted; the last one may have fewer rows."""
    return math.ceil(math.ceil(rows / train.batch_size) / train.accumulation)


def planned_updates(rows: int, train: TrainConfig, mixed: int = 0) -> int:
    """Returns the updates of an arm; at least `least_steps`.

    `rows` are those of its corpus, without copies, `mixed` the rows that methods add to an epoch.
    """
    read = rows * train.copies + mixed
    return train.steps or max(train.least_steps, updates_of_epoch(read, train) * (train.epochs or 1))


def lengthened(train: TrainConfig, rows: int) -> TrainConfig:
    """Returns the settings of an arm that reads so many rows in an epoch, copies counted.

    Where its epochs are fewer than `least_steps` updates, it trains so many.
    """
    updates = updates_of_epoch(rows, train) * (train.epochs or 1)
    if train.steps is not None or updates >= train.least_steps:
        return train
    return train.model_copy(update={"epochs": None, "steps": train.least_steps})
