"""Pulls the weights back to where they started, after each update.

Decoupled from the gradient, as weight decay is in AdamW, so that an adaptive optimiser does not rescale it:
theta <- theta - lr * strength * (theta - start). For an adapter theta is what it adds to the weights, s B A; the
pull moves A and B down the gradient of half the squared distance ||s B A - s B0 A0||^2.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foci.focus import HoldsWeights
from foci.models import block_of, blocks, fsdp
from foci.models.sharding import part_of, whole


@runtime_checkable
class PacesOptimizer(Protocol):
    """A method that holds weights and slows the optimiser's own step down, too (RecAdam's lambda)."""

    def pace(self, step: int) -> int | float:
        """Returns the factor of the learning rate at update `step` (from 0), between 0 and 1; several multiply."""
        ...


@runtime_checkable
class ChecksSteps(Protocol):
    """A method that holds weights and cannot work in a run of any length."""

    def check_steps(self, steps: int) -> None:
        """Raises ValueError where the method cannot work in a run of so many updates."""
        ...


class Anchor:
    """The trainable weights as they were, and the step back toward them."""

    def __init__(self, model: nn.Module) -> None:
        fsdp.reset(model)
        self.model = model
        self.start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = {name: p for name, p in model.named_parameters() if name in self.start}
        self.pairs = dict(_adapter_pairs(model, self.start))
        self.paired = {name for pair in self.pairs for name in pair}

    @torch.no_grad()
    def pull(self, strengths: Mapping[str, float | Tensor], rates: Mapping[str, float]) -> None:
        """Takes one step back.

        `strengths` are as `HoldsWeights.pull` gives them; `rates` is the learning rate by parameter name. Raises
        ValueError for a name that the model does not have and for a number that would overshoot; a tensor is limited to
        1 / lr, which is the start itself.
        """
        numbers, tensors = self._sorted(strengths)
        for name, start in self.start.items():
            if name in self.paired:
                continue
            step = self._step(name, numbers, tensors, rates)
            if isinstance(step, Tensor) or step:
                self.parameters[name].sub_((self.parameters[name] - start) * step)
        for (a, b), scaling in self.pairs.items():
            step = self._step(a, numbers, tensors, rates)
            if isinstance(step, Tensor) or step:
                down = self._gradients(a, b, scaling, step)
                for name, gradient in zip((a, b), down, strict=True):
                    self.parameters[name].sub_(part_of(gradient, self.parameters[name]))

    def _sorted(self, strengths: Mapping[str, float | Tensor]) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Returns numbers by block, tensors by the trainable parameter (for an adapter: its A) that they hold."""
        known = {"*", *blocks(self.model)}
        held = {_bare(name): name for name in self.start if name not in self.paired}
        held |= {_bare(f"{_layer(a)}.{self._adapted(a)}"): a for a, _ in self.pairs}
        numbers = {name: s for name, s in strengths.items() if not isinstance(s, Tensor)}
        tensors = {name: s for name, s in strengths.items() if isinstance(s, Tensor)}
        exist = {_bare(name) for name, _ in self.model.named_parameters()}
        if unknown := sorted((set(numbers) - known) | (set(tensors) - exist)):
            raise ValueError(
                f"pull names {unknown[:5]}, which the model does not have; it has blocks {sorted(known)} and "
                f"{len(exist)} parameters such as {next(iter(exist), 'none')}"
            )
        if tensors and not held.keys() & tensors:
            raise ValueError(
                f"pull holds {len(tensors)} parameters such as {next(iter(tensors))}, none of which trains (the first "
                f"that does is {next(iter(self.start), 'none')}); train with another adapter, or drop the method"
            )
        kept = {held[name]: s for name, s in tensors.items() if name in held}  # what is frozen stays anyway
        return numbers, {n: s if n in self.paired else part_of(s, self.parameters[n]) for n, s in kept.items()}

    def _step(
        self, name: str, numbers: Mapping[str, float], tensors: Mapping[str, Tensor], rates: Mapping[str, float]
    ) -> float | Tensor:
        """Returns learning rate times strength, as a number or per element."""
        rate = rates.get(name, 0.0)
        strength = numbers.get("*", 0.0) + numbers.get(block_of(name), 0.0)
        if rate * strength > 1:
            raise ValueError(
                f"learning rate {rate:.3g} times strength {strength:.3g} is {rate * strength:.3g} for {name}: "
                "a pull over 1 jumps past the start; lower the strength or the learning rate"
            )
        if name not in tensors:
            return rate * strength
        return (rate * (strength + tensors[name])).clamp(max=1.0)

    def transposed(self, name_a: str) -> bool:
        """Says whether the adapted weight is stored as (in, out): GPT-2's Conv1D, and some stacks of experts."""
        layer = self.model.get_submodule(_layer(name_a))
        stacked = getattr(layer, "num_experts", 1) > 1
        return not layer._did_swap_in_out_features if stacked else bool(getattr(layer, "fan_in_fan_out", False))

    def _adapted(self, name_a: str) -> str:
        """Returns the name, in its module, of the weight that an adapter changes."""
        return str(getattr(self.model.get_submodule(_layer(name_a)), "parameter_name", "weight"))

    def _experts(self, name_a: str) -> int:
        """Returns the number of experts in a stack that PEFT adapts as one parameter; 1 for any other layer."""
        return int(getattr(self.model.get_submodule(_layer(name_a)), "num_experts", 1))  # type: ignore[arg-type]

    def _gradients(self, name_a: str, name_b: str, scaling: float, step: float | Tensor) -> tuple[Tensor, Tensor]:
        """Returns the steps of A and of B down half sum(step * (s B A - s B0 A0)^2), over all experts of a stack.

        Where `step` is a number, the product B A is never made. The curvature in A and B is s^2 (|A A^T| + |B^T B|):
        where step times curvature is over 1 the step is divided by it, so that none jumps past the start.
        """
        experts = self._experts(name_a)
        a, b = _by_expert(whole(self.parameters[name_a]), whole(self.parameters[name_b]), experts)
        a0, b0 = _by_expert(whole(self.start[name_a]), whole(self.start[name_b]), experts)
        norms = torch.linalg.matrix_norm(a @ a.mT, 2) + torch.linalg.matrix_norm(b.mT @ b, 2)
        largest = step.max() if isinstance(step, Tensor) else step
        factor = scaling**2 / (largest * scaling**2 * norms.amax()).clamp(min=1.0)
        if isinstance(step, Tensor):
            weighed = step.mT if self.transposed(name_a) else step
            pulled = factor * weighed * (b @ a - b0 @ a0)
            down_a, down_b = b.mT @ pulled, pulled @ a.mT
        else:
            factor = step * factor
            down_a = factor * (b.mT @ b @ a - b.mT @ b0 @ a0)
            down_b = factor * (b @ (a @ a.mT) - b0 @ (a0 @ a.mT))
        if experts == 1:
            return down_a, down_b
        return down_a.flatten(0, 1), down_b.permute(1, 2, 0).flatten(1, 2)


def _by_expert(a: Tensor, b: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Returns A (expert, rank, in) and B (expert, out, rank) of PEFT's A (expert * rank, in), B (out, rank * expert).

    A layer that is no stack (one expert) keeps its two matrices.
    """
    if experts == 1:
        return a, b
    return a.unflatten(0, (experts, -1)), b.unflatten(1, (-1, experts)).permute(2, 0, 1)


def _layer(name_a: str) -> str:
    """Returns the name of the layer whose adapter has this A."""
    return name_a.split(".lora_A.", maxsplit=1)[0]


def _bare(name: str) -> str:
    """Returns a parameter's name in the model without adapter."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _adapter_pairs(model: nn.Module, start: Mapping[str, Tensor]) -> list[tuple[tuple[str, str], float]]:
    """Returns ((name of A, name of B), scaling) of every trainable LoRA pair."""
    pairs = []
    for name in start:
        if ".lora_A." not in name:
            continue
        module, adapter = name.split(".lora_A.")
        adapter = adapter.removesuffix(".weight")
        other = f"{module}.lora_B.{adapter}.weight"
        if other in start:
            scaling: Any = model.get_submodule(module).scaling
            pairs.append(((name, other), float(scaling[adapter])))
    return pairs


def _strongest(strengths: Mapping[str, float], blocks: Collection[str]) -> float:
    """Returns the largest strength in some blocks."""
    return strengths.get("*", 0.0) + max((strengths[block] for block in blocks if block in strengths), default=0.0)


class HoldCallback(TrainerCallback):
    """Paces the optimiser's step and pulls after it, both by the number of updates done so far."""

    def __init__(self, holders: Sequence[HoldsWeights], anchor: Anchor) -> None:
        self.holders, self.anchor = holders, anchor
        self.rates: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not args.learning_rate:  # a trial, in which nothing moves
            return
        for holder in self.holders:
            if isinstance(holder, ChecksSteps):
                holder.check_steps(state.max_steps)
        scheduler, groups = kwargs.get("lr_scheduler"), kwargs["optimizer"].param_groups
        names = {p: n for n, p in self.anchor.model.named_parameters()}
        blocks = [{block_of(names[p]) for p in group["params"] if p in names} for group in groups]
        found = (getattr(scheduler, name, ()) for name in ("lr_lambdas", "base_lrs"))
        shares = list(zip(*found, blocks, strict=False))
        most, step = 0.0, 0
        for at in range(state.global_step, state.max_steps if shares else 0):
            strengths = self._numbers(at)
            pulls = (base * share(at) * _strongest(strengths, inside) for share, base, inside in shares)
            if (pull := max(pulls)) > most:
                most, step = pull, at
        if most > 1:
            raise ValueError(
                f"{' and '.join(map(repr, self.holders))}: learning rate times strength reaches {most:.3g} in update "
                f"{step + 1}, and a pull over 1 jumps past the start; divide the strength (of rec_adam gamma) or the "
                f"learning rate by at least {most:.3g}"
            )

    def _numbers(self, step: int) -> dict[str, float]:
        """Returns the strengths of an update that are numbers, by block; tensors are limited where they pull."""
        found: dict[str, float] = {}
        for holder in self.holders:
            for name, strength in holder.pull(step).items():
                if not isinstance(strength, Tensor):
                    found[name] = found.get(name, 0.0) + strength
        return found

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        pace = math.prod(h.pace(state.global_step) for h in self.holders if isinstance(h, PacesOptimizer))
        groups = kwargs["optimizer"].param_groups
        self.rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * pace

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        groups = kwargs["optimizer"].param_groups
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate
        names = {p: n for n, p in self.anchor.model.named_parameters()}
        rates = {names[p]: group["lr"] for group in groups for p in group["params"]}
        strengths: dict[str, float | Tensor] = {}
        for holder in self.holders:
            for name, strength in holder.pull(state.global_step).items():
                strengths[name] = strengths.get(name, 0.0) + strength
        self.anchor.pull(strengths, rates)
