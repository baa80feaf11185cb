"""Combines the methods of one role into one decision, and refuses methods that would do nothing."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foci.focus import (
    ENTROPY,
    LOSS_WEIGHT,
    REHEARSED,
    UNWEIGHTED,
    Batch,
    EditsTokens,
    GuidesHeads,
    Imitates,
    LiveTeacher,
    Method,
    MixesRows,
    Pattern,
    Plan,
    Prepares,
    Row,
    ScalesLayers,
    WeighsTokens,
    cure_of,
)
from foci.models import block_of, blocks, layer_count, unadapted_blocks
from foci.rows import changed, names_of

ON_THE_FLY = frozenset({"nll", ENTROPY})
"""Columns the trainer computes; all others must come with the rows."""


@runtime_checkable
class NeedsWeigher(Protocol):
    """A method that does nothing where no other method weighs tokens."""

    def needs_weigher(self) -> bool:
        """Says whether it does, with its settings."""
        ...


def live_columns(plan: Plan) -> frozenset[str]:
    """Returns the columns of the learner's own that the plan's weighers read in every update."""
    return frozenset[str]().union(*(weigher.needs() for weigher in plan.of(WeighsTokens))) & ON_THE_FLY


def replaces_loss(plan: Plan) -> bool:
    """True where a plan needs another loss than a trainer's own mean over tokens."""
    return bool(plan.of(WeighsTokens) or plan.of(GuidesHeads) or plan.of(Imitates) or plan.normalise != "update")


def update_weights(plan: Plan, batch: Batch) -> Float[Tensor, "batch seq"]:
    """Returns the weights of every token of one update: the product of all weighers, 0 where a token has no NLL.

    Weighers leave rehearsed rows at weight 1. A token has weight 0 where the column `UNWEIGHTED` is 1, and the column
    `LOSS_WEIGHT` is a factor, on all rows.
    With `plan.normalise == "row"` the weights of a row sum to 1. Raises ValueError for a wrong shape (a (batch, 1)
    weight would be broadcast), and for negative, infinite or NaN weights.
    """
    weights = batch.predicted().float()
    old = batch.columns[REHEARSED] > 0 if REHEARSED in batch.columns else torch.zeros_like(weights, dtype=torch.bool)
    for weigher in plan.of(WeighsTokens):
        factor = _checked(weigher.weigh(batch), batch, weigher)
        weights = weights * torch.where(old, torch.ones_like(factor), factor)
    if UNWEIGHTED in batch.columns:
        weights = weights * (batch.columns[UNWEIGHTED] == 0)
    if LOSS_WEIGHT in batch.columns:
        weights = weights * batch.columns[LOSS_WEIGHT]
    if plan.normalise == "row":
        sums = weights.sum(1, keepdim=True)
        weights = weights / torch.where(sums > 0, sums, torch.ones_like(sums))
    return weights


def update_holds(
    plan: Plan, batch: Batch, weights: Float[Tensor, "batch seq"], largest: float
) -> list[Float[Tensor, "batch seq"]]:
    """Returns, for each method that imitates, how much every token of one update is held; 0 where there is no NLL.

    `largest` is the largest of the update's weights, of all processes. Raises ValueError for a wrong shape, and for
    negative, infinite or NaN numbers.
    """
    scaled = weights / largest if largest > 0 else weights
    return [
        _checked(method.hold(batch, scaled), batch, method).float() * batch.predicted() for method in plan.of(Imitates)
    ]


def _checked(factor: Tensor, batch: Batch, method: WeighsTokens | Imitates) -> Tensor:
    """Refuses what is no weight per token; returns it where the batch is."""
    if factor.shape != batch.input_ids.shape:
        raise ValueError(
            f"{method!r} gave weights of shape {tuple(factor.shape)}, expected {tuple(batch.input_ids.shape)}"
        )
    if not bool(torch.isfinite(factor).all() & (factor >= 0).all()):
        worst = factor[~torch.isfinite(factor) | (factor < 0)][0].item()
        raise ValueError(f"{method!r} gave a weight of {worst}; weights are finite and at least 0")
    return factor.to(batch.input_ids.device)


def check_columns(plan: Plan, rows: Sequence[Row]) -> None:
    """Refuses a weigher whose column is absent, or the same on every token (it would change nothing)."""
    for weigher in plan.of(WeighsTokens):
        for name in sorted(weigher.needs() - ON_THE_FLY):
            if name not in (known := names_of(rows)):
                raise ValueError(
                    f"{weigher!r} reads the column {name!r}, which no row has (columns here: "
                    f"{sorted(known) or 'none'}); "
                    + (
                        "give the documents answer_spans"
                        if name == "answer"
                        else f"score the corpus first, or drop {name!r}"
                    )
                )
            values = set[float]()
            for row in rows:
                values.update(row.columns.get(name, (0.0,) * len(row))[1:])
                if len(values) > 1:
                    break
            else:
                raise ValueError(
                    f"{weigher!r}: column {name!r} is {values} on all tokens of all {len(rows)} rows, so it weighs "
                    "nothing; check where the column comes from"
                )


def with_columns(plan: Plan, rows: Sequence[Row]) -> Sequence[Row]:
    """Returns the rows, with 0 in every column that a weigher reads and a row lacks."""
    names = frozenset[str]().union(*(weigher.needs() for weigher in plan.of(WeighsTokens))) - ON_THE_FLY
    return changed(rows, partial(_with_zeros, names), names) if names else rows


def _with_zeros(names: Collection[str], row: Row) -> Row:
    return replace(row, columns={**{name: (0.0,) * len(row) for name in names}, **row.columns})


def check_prepared(plan: Any) -> None:
    """Refuses what is no plan, and a method that must still be prepared: it would do nothing."""
    if not isinstance(plan, Plan):
        first = plan[0] if isinstance(plan, list | tuple) and plan else plan
        raise TypeError(f"plan takes a Plan, got {plan!r}; {cure_of(first)}")
    for method in plan.methods:
        if isinstance(method, Prepares):
            raise TypeError(
                f"{method!r} must look at the model or the corpus before training, and has not; run "
                "`plan, rows = foci.learn.offline.prepare(plan, Context(model, tokenizer, rows, folder))` and train "
                "with that plan on those rows"
            )


def check_arguments(plan: Plan, args: Any, compute_loss_func: Any, epochs: int = 1) -> None:
    """Refuses what a trainer would ignore, or what would break the plan's laws without a word.

    `epochs`: how many of them are read in one pass.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs in one process would split an update; set CUDA_VISIBLE_DEVICES to one of them, or "
            "launch your own script with torchrun"
        )
    if plan.of(GuidesHeads) and args.fp16:
        raise ValueError(f"fp16={args.fp16} scales the loss, which guided heads do not take; use bf16 or float32")
    if replaces_loss(plan) and (args.label_smoothing_factor or compute_loss_func is not None):
        raise ValueError(
            f"this plan brings its own loss, so label_smoothing_factor={args.label_smoothing_factor} and "
            f"compute_loss_func={compute_loss_func} would do nothing; leave them out"
        )
    check_weighed(plan.methods, lambda: bool(plan.of(WeighsTokens)))
    by_epoch = [name for name in ("eval", "save", "logging") if getattr(args, f"{name}_strategy") == "epoch"]
    mixing: list[MixesRows] = plan.of(MixesRows)
    if by_epoch and mixing and epochs > 1:
        raise ValueError(
            f"{mixing[0]!r} mixes rows in, and all epochs are one pass then, so {by_epoch[0]}_strategy="
            f"'epoch' would act once, at the end; set it to 'steps', and {by_epoch[0]}_steps"
        )
    stored = [method for method in plan.of(Imitates) if not isinstance(method.teacher(), LiveTeacher)]
    if plan.of(EditsTokens) and stored:
        raise ValueError(
            f"{stored[0]!r} was told before training what its teacher says of the rows as they stand, and "
            f"{plan.of(EditsTokens)[0]!r} changes them in every epoch; ask the teacher while training (teacher: live)"
        )
    if plan.of(EditsTokens) and args.dataloader_persistent_workers:
        raise ValueError(
            f"dataloader_persistent_workers={args.dataloader_persistent_workers} would repeat the edits of the first "
            "epoch in every other; leave it out"
        )
    if args.save_only_model or args.load_best_model_at_end:
        raise ValueError(
            f"save_only_model={args.save_only_model} and load_best_model_at_end={args.load_best_model_at_end}: "
            "checkpoints here are complete, for a resume in the same bits; leave both out and choose a step afterwards"
        )


def check_weighed(methods: Sequence[Method], weighs: Callable[[], bool]) -> None:
    """Raises ValueError for a method that does nothing where no method weighs tokens (`weighs`: does one?)."""
    for method in methods:
        if isinstance(method, NeedsWeigher) and method.needs_weigher() and not weighs():
            raise ValueError(
                f"{method!r} is about tokens of little weight, and nothing weighs tokens in this plan; add a method "
                "that does, such as train_attention, or let it hold all tokens (on: all)"
            )


def block_scales(plan: Plan, model: nn.Module) -> dict[str, float]:
    """Returns the learning-rate multiplier of every block: the product over methods; 0 is frozen.

    Raises ValueError where a method names a block that is not there, gives a bad number, or nothing is left to train.
    """
    names = blocks(model)
    for scaler in plan.of(ScalesLayers):
        if unknown := scaler.blocks() - set(names):
            raise ValueError(
                f"{scaler!r} names blocks that match no parameter, {_listed(unknown)}; the model has {_listed(names)}"
            )
    scales = dict.fromkeys(names, 1.0)
    for scaler in plan.of(ScalesLayers):
        for name in names:
            factor = scaler.scale(name)
            if not 0 <= factor < float("inf"):
                raise ValueError(f"{scaler!r} scales block {name} by {factor}; expected a finite number of at least 0")
            scales[name] *= factor
    trained = {block_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    without = unadapted_blocks(model)  # a scale of 0 took their adapters out
    for scaler in plan.of(ScalesLayers):
        scaled = {name for name in names if scaler.scale(name) != 1}
        if scaled and not scaled & trained and not any(scaler.scale(name) == 0 for name in without):
            raise ValueError(
                f"{scaler!r} scales blocks {_listed(scaled)}, none of which trains: only {_listed(trained)} do; scale "
                "one of these, or train with another adapter"
            )
    if plan.of(ScalesLayers) and not any(p.requires_grad and scales[block_of(n)] for n, p in model.named_parameters()):
        raise ValueError(
            f"{' and '.join(map(repr, plan.of(ScalesLayers)))} freeze every block that could be trained "
            f"({_listed(trained)}): their scale is 0; give one of them a scale above 0, or train with another adapter"
        )
    return scales


def scaled_groups(groups: Sequence[dict[str, Any]], scales: Mapping[Tensor, float]) -> list[dict[str, Any]]:
    """Returns an optimiser's groups of parameters, split so that each has one learning rate: its own times a scale."""
    return [
        {**group, "params": [p for p in group["params"] if scales[p] == scale], "lr": group["lr"] * scale}
        for group in groups
        for scale in sorted({scales[p] for p in group["params"]})
    ]


def _listed(blocks: Collection[str]) -> str:
    """Returns the names in order, of many layers the first and the last.

    >>> _listed(["norm", "layers.2", "layers.0", "layers.1", "layers.10"])
    'layers.0, ..., layers.10, norm'
    """
    layers = [name for name in blocks if name.removeprefix("layers.").isdigit()]
    numbered = sorted(layers, key=lambda name: int(name.removeprefix("layers.")))
    few = numbered if len(numbered) <= 3 else [numbered[0], "...", numbered[-1]]
    return ", ".join([*few, *sorted(set(blocks) - set(numbered))])


@contextmanager
def frozen(model: nn.Module, scales: Mapping[str, float]) -> Iterator[None]:
    """Turns gradients off for the parameters of blocks with scale 0, while open."""
    held = [p for name, p in model.named_parameters() if p.requires_grad and not scales[block_of(name)]]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def head_targets(plan: Plan, model: nn.Module, scales: Mapping[str, float]) -> list[dict[int, dict[int, Pattern]]]:
    """Returns {layer: {head: pattern}} for each guide. Refuses guides of no head and of frozen layers."""
    every = []
    trained = {block_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    for guide in plan.of(GuidesHeads):
        targets = {n: dict(guide.targets(n)) for n in range(layer_count(model))}
        targets = {n: heads for n, heads in targets.items() if heads}
        if not targets:
            raise ValueError(f"{guide!r} guides no head in any of {layer_count(model)} layers; name a head or drop it")
        still = [n for n in targets if not scales[f"layers.{n}"]]
        if still:
            raise ValueError(f"{guide!r} guides heads in layers {still}, which are frozen; thaw them or guide others")
        if not {"embeddings", *(f"layers.{n}" for n in range(max(targets) + 1))} & trained:
            raise ValueError(
                f"{guide!r} guides heads in layers {sorted(targets)}, which nothing that trains can change: only "
                f"{sorted(trained)} train; train with another adapter, or drop the guide"
            )
        every.append(targets)
    return every
