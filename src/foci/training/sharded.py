"""How a Trainer trains, saves and goes on with a model that FSDP2 shards.

Transformers calls such a model "sharded at load time" and then leaves its placement and its gradients alone. A
checkpoint holds whole tensors, in the files of a training without sharding: any number of processes goes on from it.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import DistributedType  # type: ignore[import-untyped]
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from foci.focus import Batch, LiveTeacher, Plan, StoredTeacher
from foci.models import fsdp, sharding
from foci.models.architecture import base_of
from foci.models.head import head_of
from foci.models.padding import check_padding, neighbour_limits
from foci.system import processes
from foci.training import deepspeed
from foci.training.dataset import FILLER_ID, MixedDataset, RowDataset
from foci.training.passes import filled

if TYPE_CHECKING:
    Base = Trainer
else:
    Base = object


class ShardedMixin(Base):  # type: ignore[valid-type, misc]
    """Lets a Trainer train a model that is sharded already; for any other model it changes nothing."""

    is_distributed_loading_by_transformers: bool
    plan: Plan

    def __init__(self, model: nn.Module | None = None, args: TrainingArguments | None = None, **trainer: Any) -> None:
        self.is_sharded = model is not None and sharding.is_sharded(model)
        if self.is_sharded:
            assert model is not None
            sharding.check_trainable(model)
        super().__init__(model=model, args=args, **trainer)
        if self.is_deepspeed_enabled:  # perhaps by an Accelerator that was there before
            deepspeed.check(self.plan, self.args, self.model)
        if self.is_sharded:
            self.is_distributed_loading_by_transformers = True

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not self.is_sharded:  # its parts are on their devices
            super()._move_model_to_device(model, device)

    @property
    def reads_whole(self) -> bool:
        """True where accelerate's FSDP or DeepSpeed trains: a micro-batch is not cut into parts there."""
        return self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)

    def prove(self) -> None:
        """Asks of a sharded model in all processes at once what is asked of each model once, by passes of its own.

        Raises ValueError for a model that would read the rows of processes in different numbers of passes.
        """
        if not self.is_sharded:
            return
        if isinstance(self.train_dataset, RowDataset | MixedDataset):
            self._check_longest(int(self.train_dataset.lengths().max()))
        check_padding(self.model)
        head_of(self.model)
        fsdp.reset(self.model)

    def readable(self, batches: Iterable[Batch]) -> list[Batch]:
        """Returns the batches of an update that this process reads; every process must call it.

        Raises ValueError, as `prove` does, for rows of a data set that is not foci's: how long they are is known now.
        """
        found = list(batches)
        if self.is_sharded and not isinstance(self.train_dataset, RowDataset | MixedDataset):
            self._check_longest(processes.largest(max(int(batch.attention_mask.sum(1).max()) for batch in found)))
        return found

    def _check_longest(self, longest: int) -> None:
        limits = [limit for limit, *_ in neighbour_limits(self.model)]
        if limits and longest > min(limits):
            raise ValueError(
                f"{type(base_of(self.model)).__name__.removeprefix('FSDP')} reads rows above {min(limits)} tokens "
                f"apart from shorter ones, which processes that share a model cannot, got a row of {longest}; set "
                f"corpus.max_length to at most {min(limits)}, or train.fsdp: false"
            )

    def as_many(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns as many parts of a micro-batch as any process has; every process must call it."""
        return filled(parts, processes.largest(len(parts)), FILLER_ID) if self.is_sharded else parts

    def asks(self, teacher: LiveTeacher | StoredTeacher, *, any_held: bool) -> bool:
        """Returns whether a teacher is asked about a micro-batch of which this process holds tokens, or holds none.

        A live teacher of a sharded model is asked by all processes or by none; every process must call it.
        """
        if self.is_sharded and isinstance(teacher, LiveTeacher):
            return bool(processes.largest(int(any_held)))
        return any_held

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        fsdp.reset(model or self.model)  # an optimiser steps the parts, not whole parameters of a pass before
        optimizer = super().create_optimizer(model)
        if self.is_deepspeed_enabled and self.plan.methods:
            deepspeed.check_optimizer(optimizer)
        return optimizer

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        """Averages gradients after every micro-batch: to wait for the last would keep them whole in every process.

        Transformers' own asks for a configuration that a model has which Transformers sharded.
        """
        return nullcontext()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.is_sharded and state_dict is None:
            state_dict = sharding.whole_state(self.model, keep=self.args.should_save)
        if self.args.should_save or not self.is_sharded:
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = sharding.whole_optimizer(self.optimizer.state_dict(), keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and not self.is_deepspeed_enabled:
            deepspeed.check_resume(checkpoint)
        if checkpoint is None or not self.is_sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", mmap=True, weights_only=True)
        self.optimizer.load_state_dict(sharding.parts_of_optimizer(state, self.optimizer))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
