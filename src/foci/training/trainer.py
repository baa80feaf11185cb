"""The trainer: `transformers.Trainer` with a plan. It knows roles, never methods.

What the Trainer does well stays the Trainer's: devices, processes, precision, schedules, logging. Replaced are the
loss (where a plan weighs tokens or guides heads), the order of rows (where it must survive a resume), the writing of
checkpoints, and what happens when a number is not finite. With an empty plan the Trainer's own loss is used, bit for
bit.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from foci.attention import Guide, guided
from foci.focus import (
    ENTROPY,
    Batch,
    EditsTokens,
    GuidesHeads,
    HoldsWeights,
    Imitates,
    LiveTeacher,
    MixesRows,
    Plan,
    Row,
    ScalesLayers,
    SoftTargets,
    StoredTeacher,
)
from foci.models import LanguageModel, block_of, evaluating
from foci.models.balancing import balancing_losses, is_balanced
from foci.models.forward import check_ids
from foci.models.losses import token_entropy, token_nll
from foci.models.padding import changes_of, warn_of_neighbours
from foci.models.sharding import end_backward_at, without_gradients
from foci.models.soft_targets import Held, Start, is_frozen, live_targets, summed_loss
from foci.system import checkpoint
from foci.training import deepspeed, sharing
from foci.training.anchor import Anchor, HoldCallback
from foci.training.dataset import (
    Collator,
    EpochCallback,
    MixedDataset,
    RowDataset,
    Update,
    are_ours,
    are_rows,
    as_rows,
    batch_of,
    check_inputs,
    has_weights,
    pad_id,
)
from foci.training.evaluation import EvaluatesRows, with_best
from foci.training.non_finite import NonFinite
from foci.training.passes import WHOLE, Passes, check_packs, parts_of
from foci.training.plan import (
    block_scales,
    check_arguments,
    check_columns,
    check_prepared,
    frozen,
    head_targets,
    live_columns,
    replaces_loss,
    scaled_groups,
    update_holds,
    update_weights,
    with_columns,
)
from foci.training.sharded import ShardedMixin

EXTRAS = ("columns", "holds", "row_ids", "weights")
"""Keys that our batches carry beside the model's own inputs."""


class FocusMixin(EvaluatesRows, ShardedMixin):
    """Gives any `transformers.Trainer` (TRL's `SFTTrainer` too) a plan. Put it first among the bases.

    `train_dataset` may be a sequence of `Row`, or of mappings with `input_ids`; anything else is handed through to
    the trainer it is mixed into. `copies` repeats the rows within an epoch, each with its own edits. `goes_on`: the
    model's adapter was trained before, and the start that methods hold to is the model with it. `passes`: how an
    update passes through the model.
    """

    _staging: Path | None = None
    _weighted = False
    _anchor: Anchor | None = None
    _start: Start | None = None
    _passes: Passes
    _around: Callable[[], AbstractContextManager[None]] = nullcontext
    reads_ahead = False  # True where later tokens count too, so that no row ends at its last weighed one

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        plan: Plan | None = None,
        train_dataset: Any = None,
        copies: int = 1,
        goes_on: bool = False,
        passes: Passes = WHOLE,
        **trainer: Any,
    ) -> None:
        self.plan = Plan() if plan is None else plan
        check_prepared(self.plan)
        check_packs(self.plan.methods, passes.packs)
        self.copies, self.goes_on, self.passes = copies, goes_on, passes
        self._scales, self._guides, self.update = dict[str, float](), list[Guide](), Update()
        args = copy.copy(args) if args is not None else TrainingArguments("tmp_trainer")
        deepspeed.check(self.plan, args, model)
        args.logging_nan_inf_filter = False  # it logs a NaN loss as the average of the losses before it
        if are_rows(train_dataset, trainer.get("data_collator")):
            rows = as_rows(train_dataset)
            check_columns(self.plan, rows)
            if isinstance(model, LanguageModel):
                check_ids(model, rows)
            train_dataset = self._dataset(with_columns(self.plan, rows), args)
            self._weighted = has_weights(train_dataset)
            collator = Collator(pad_id(model, trainer.get("processing_class")), labelled=not self.replaces_loss)
            trainer.setdefault("data_collator", collator)
        elif copies != 1 or self.plan.of(EditsTokens) or self.plan.of(MixesRows):
            raise TypeError(
                f"copies, and plans that edit or mix rows, need a list of rows, got train_dataset={train_dataset!r:.60}"
            )
        sharing.for_our_loss(args, replaced=self.replaces_loss)
        super().__init__(model=model, args=args, train_dataset=train_dataset, **trainer)
        check_arguments(self.plan, self.args, self.compute_loss_func, len(getattr(self.train_dataset, "old", ())))
        self._epochs = EpochCallback(self.train_dataset)
        self.add_callback(self._epochs)
        self.model_accepts_loss_kwargs |= self.replaces_loss  # our loss is normalised over the whole update

    @property
    def replaces_loss(self) -> bool:
        """True where the plan, the corpus' own weights, or the passes need another loss than the Trainer's own."""
        return replaces_loss(self.plan) or self._weighted or self.passes.replaces_loss

    def _dataset(self, rows: Sequence[Row], args: TrainingArguments) -> RowDataset | MixedDataset:
        new = RowDataset(rows, self.plan.of(EditsTokens), seed=args.seed, copies=self.copies)
        if not self.plan.of(MixesRows):
            return new
        epochs = args.num_train_epochs
        if args.max_steps > 0:
            epochs = math.ceil(args.max_steps * sharing.rows_of_update(args) / len(new))
        mixed = MixedDataset(new, self.plan, math.ceil(epochs))
        args.num_train_epochs = mixed.read_in(epochs) / len(mixed)  # one pass over all epochs; see MixedDataset
        return mixed

    def _width(self) -> torch.dtype:
        """Returns float32, or float64 for a model in float64."""
        return torch.promote_types(next(self.model.parameters()).dtype, torch.float32)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Returns this process' micro-batches of one update, and the sum of weights over those of all processes."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not samples or not (self.replaces_loss or are_ours(samples)):
            return samples, items
        check_inputs(samples)
        whole, split = sharing.whole_update([self._with_live(batch) for batch in self.readable(map(batch_of, samples))])
        weights = update_weights(self.plan, whole)
        self.update = Update.of(whole, weights, sharing.positions_of(samples))
        if not self.replaces_loss:
            return samples, items
        weights = weights.to(self._width())
        for inputs, part in zip(samples, split(weights), strict=True):
            inputs["weights"] = part
        self._set_holds(samples, whole, weights, split)
        self._set_guides(whole)
        for inputs in samples:
            inputs["parts"] = self._parts(inputs)
        parts = [part for inputs in samples for part in inputs["parts"]]
        self.update = replace(self.update, positions=sharing.positions_of(parts), read=sharing.tokens_of(parts))
        return samples, weights.sum().to(device)

    def _set_holds(
        self, samples: list[Any], whole: Batch, weights: Tensor, split: Callable[[Tensor], list[Tensor]]
    ) -> None:
        """Gives each micro-batch its part of strength * a / sum(a over the update), per method that imitates."""
        methods = self.plan.of(Imitates)
        if not methods:
            return
        factors, any_held = [], torch.zeros_like(weights, dtype=torch.bool)
        for method, hold in zip(methods, update_holds(self.plan, whole, weights, float(weights.max())), strict=True):
            strength = method.strength(self.state.global_step, self.state.max_steps)
            total = float(hold.sum(dtype=weights.dtype))
            share = strength * self.args.world_size / total if total else 0.0
            factors.append(split(hold.to(weights.dtype) * share))
            any_held |= hold * strength > 0
        self.update = replace(self.update, held=int(any_held.sum()))
        for n, inputs in enumerate(samples):
            inputs["holds"] = [parts[n] for parts in factors]

    def _with_live(self, batch: Batch) -> Batch:
        """Adds the columns of the learner's own that weighers ask for: its NLL, and its entropy."""
        wanted = live_columns(self.plan)
        if not wanted:
            return batch
        model, moved = self.model_wrapped, batch.to(self.args.device)
        with without_gradients(model), evaluating(model), self._around(), self.accelerator.autocast():
            if ENTROPY in wanted:
                nll, entropy = self.token_entropy(model, moved)
                found = {"nll": nll, ENTROPY: entropy}
            else:
                found = {"nll": self.token_nll(model, moved)}
        found = {name: column.to(batch.input_ids.device) for name, column in found.items()}
        return replace(batch, columns={**batch.columns, **found})

    def token_nll(self, model: nn.Module, batch: Batch, where: Tensor | None = None) -> Tensor:
        """Returns the NLL, in nats, of every predicted token in `where`; that of token t stands at t."""
        return token_nll(model, batch, where)

    def token_entropy(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the NLL and the entropy (`ENTROPY`), in nats, of every predicted token."""
        return token_entropy(model, batch)

    def _set_guides(self, whole: Batch) -> None:
        """Sets each guide's factors: strength over the number of guided queries in the update, per pattern."""
        for method, guide in zip(self.plan.of(GuidesHeads), self._guides, strict=True):
            strength = method.strength(self.state.global_step, self.state.max_steps) * self.args.world_size
            for pattern, count in guide.counts(whole).items():
                self.update = replace(self.update, guided=self.update.guided + (int(count) if strength > 0 else 0))
                guide.scales = {**guide.scales, pattern: strength / max(float(count), 1.0)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Returns the Trainer's own loss or, where the plan asks for it, sum(w * nll) / sum(w over the update)."""
        if "weights" not in inputs:
            if "attention_mask" in inputs:
                warn_of_neighbours(model, inputs["attention_mask"])
            own = {name: value for name, value in inputs.items() if name not in EXTRAS}
            return super().compute_loss(model, own, return_outputs, num_items_in_batch)
        batch, weights = batch_of(inputs), inputs["weights"]
        for guide in self._guides:
            if words := changes_of(model, batch.attention_mask):
                raise ValueError(f"heads cannot be guided here: {words}")
            guide.read(sharing.without_fillers(batch))
        total = torch.as_tensor(num_items_in_batch, device=weights.device)
        factors = weights * (self.args.world_size / torch.where(total > 0, total, torch.ones_like(total)))
        with self.accelerator.autocast(), balancing_losses(model) as balancing:
            loss, nll = self._losses(model, batch, factors, inputs.get("holds", []))
        if not return_outputs:
            soft = float((loss - (nll * factors).sum()).detach())
            self.update = replace(self.update, divergence=self.update.divergence + soft)
        loss = sum((part.to(loss.device) * self.args.world_size for part in balancing), loss)
        end_backward_at(model, loss)
        return (loss, {"nll": nll}) if return_outputs else loss

    def _losses(self, model: nn.Module, batch: Batch, factors: Tensor, holds: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the sum of factor * NLL and of hold * soft loss over all tokens, and the NLL where a factor is."""
        methods = zip(holds, self.plan.of(Imitates), strict=True)
        wanted = [(hold, one) for hold, one in methods if self.asks(one.teacher(), any_held=bool(hold.any()))]
        held = [Held(hold > 0, self._targets(model, batch, hold > 0, method.teacher())) for hold, method in wanted]
        if held or is_frozen(model):
            return summed_loss(model, batch, factors, held, [hold for hold, _ in wanted])
        nll = self.token_nll(model, batch, factors > 0)
        return (nll * factors).sum(), nll

    def _targets(
        self, model: nn.Module, batch: Batch, where: Tensor, teacher: LiveTeacher | StoredTeacher
    ) -> SoftTargets:
        if not isinstance(teacher, LiveTeacher):
            return teacher.targets(batch, where)
        assert self._start is not None
        with without_gradients(model), self._start.of(model, self.accelerator.unwrap_model(model)) as start:
            return live_targets(start, batch, where, teacher)

    def _parts(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the parts of a micro-batch that pass through the model one after another.

        Sharded models make all processes pass equally often, and a router's balancing loss is one of its whole batch.
        """
        if self.reads_whole or is_balanced(self.model):
            return [inputs]
        trims = not self.reads_ahead and not self._guides and not self.plan.of(Imitates)
        parts = parts_of(inputs, self._passes, trims=trims)
        return self.as_many(parts)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Runs one micro-batch forward and backward. Raises `NonFinite` before anything is updated or logged."""
        parts, losses = inputs.pop("parts", [inputs]), []
        for number, part in enumerate(parts, 1):
            alone = nullcontext() if number == len(parts) else self.accelerator.no_sync(model)
            with alone, self._around():
                losses.append(super().training_step(model, part, num_items_in_batch))
            for guide in self._guides:
                guide.check_seen()
                guide.read(None)
        loss = torch.stack(losses).sum()
        if not torch.isfinite(loss):
            raise self._non_finite("loss", float(loss), list(inputs.get("row_ids", ())))
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        scaled = getattr(self.accelerator, "scaler", None) is not None  # fp16: the scaler skips such an update itself
        if norm is not None and not scaled and not math.isfinite(float(norm)):
            raise self._non_finite("gradient norm", float(norm), self.update.rows)
        return norm

    def _non_finite(self, what: str, value: float, rows: Sequence[str]) -> NonFinite:
        return NonFinite.of(what, value, self.state.global_step + 1, self.args, rows)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Makes the Trainer's optimiser with one learning rate per block where the plan scales layers."""
        optimizer = super().create_optimizer(model)
        if self.plan.of(ScalesLayers) and not getattr(optimizer, "foci_scaled", False):
            scales = {p: self._scales[block_of(name)] for name, p in (model or self.model).named_parameters()}
            optimizer.param_groups[:] = scaled_groups(optimizer.param_groups, scales)
            optimizer.foci_scaled = True
        return optimizer

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, **kwargs: Any) -> Any:
        """Trains under the plan; the model is as it was (but for its weights) when this returns or raises.

        `resume_from_checkpoint`: True takes the newest complete checkpoint of `args.output_dir`; a path must be a
        complete one (ValueError says which piece is missing). A warning names newer ones that True passes over.
        """
        root = Path(self.args.output_dir)
        resume = checkpoint.named_or_newest(root, resume_from_checkpoint)
        self._passes = self.passes.checked(self.model)
        self.prove()
        self._scales = block_scales(self.plan, self.model)
        with ExitStack() as stack:
            stack.enter_context(frozen(self.model, self._scales))
            self._guides = [Guide(targets) for targets in head_targets(self.plan, self.model, self._scales)]
            for guide in self._guides:
                stack.enter_context(guided(self.model, guide))
            dtype = torch.bfloat16 if self.args.bf16 else self._width()
            self._around = nullcontext if self._guides else self._passes.around(self.model, dtype)
            if any(isinstance(method.teacher(), LiveTeacher) for method in self.plan.of(Imitates)):
                self._start = self._start or Start(self.model, goes_on=self.goes_on)  # of the first call
            if self.plan.of(HoldsWeights):
                self._anchor = self._anchor or Anchor(self.model)
                self.add_callback(callback := HoldCallback(self.plan.of(HoldsWeights), self._anchor))
                stack.callback(self.remove_callback, callback)
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # accelerate's
            return super().train(resume_from_checkpoint=resume, **kwargs)

    def _run_epoch(self, **epoch: Any) -> None:
        over = self.control.should_training_stop  # a callback has said so at the beginning, after a resume
        if over or self.state.global_step >= self.state.max_steps:  # resumed from the last update, amid an epoch
            self.control.should_training_stop = True
            return
        super()._run_epoch(**epoch)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, RowDataset | MixedDataset):
            return super()._get_train_sampler(train_dataset)
        rows, args = sharing.rows_of_update(self.args), self.args
        own: Sampler[int] | None = sharing.ordered(dataset, args, rows)
        sampler = own or super()._get_train_sampler(train_dataset)
        if sampler is not None and args.world_size > 1 and self.replaces_loss:
            sampler = own = sharing.shared(sampler, args, rows)
        self._epochs.sampler = own
        return sampler

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        root, step = Path(super()._get_output_dir(trial)), self.state.global_step
        with checkpoint.staged(root, step, commits=self.args.should_save) as staging:
            self.accelerator.wait_for_everyone()
            self._staging = staging
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoint.move_up(with_best(self.state, root, staging / f"checkpoint-{step}"))
        self.accelerator.wait_for_everyone()
        if self.args.should_save and self.args.save_total_limit:
            checkpoint.prune(root, self.args.save_total_limit, step)


class FocusTrainer(FocusMixin, Trainer):
    """`transformers.Trainer` under a plan.

    `FocusTrainer(model, args, plan=Plan([...]), train_dataset=rows)`; an empty plan is plain fine-tuning.
    """
