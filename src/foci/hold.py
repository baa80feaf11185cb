"""The pull of the weights back to where they started, after each update.

Decoupled from the gradient, as weight decay is in AdamW, so that an adaptive optimiser does not rescale it:
theta <- theta - lr * strength * (theta - start). For an adapter theta is what it adds to the weights, s B A; the
pull moves A and B down the gradient of half the squared distance ||s B A - s B0 A0||^2.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foci.focus import HoldsWeights
from foci.models import block_of, blocks


class Anchor:
    """The trainable weights as they were, and the step back toward them."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.pairs = dict(_adapter_pairs(model, self.start))

    @torch.no_grad()
    def pull(self, strengths: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """One step back. `strengths` by block, `"*"` for all; `rates` is the learning rate by parameter name.

        Raises ValueError for a block that the model does not have and for a step that would overshoot.
        """
        if unknown := set(strengths) - set(blocks(self.model)) - {"*"}:
            raise ValueError(f"pull names blocks {sorted(unknown)} that the model does not have; it has {blocks(self.model)}")
        parameters = dict(self.model.named_parameters())
        paired = {name for pair in self.pairs for name in pair}
        for name, start in self.start.items():
            strength = strengths.get("*", 0.0) + strengths.get(block_of(name), 0.0)
            step = rates.get(name, 0.0) * strength
            if step > 1:
                raise ValueError(
                    f"learning rate {rates[name]:.3g} times strength {strength:.3g} is {step:.3g} for {name}: a pull over 1 "
                    "jumps past the start; lower the strength or the learning rate"
                )
            if step and name not in paired:
                parameters[name].sub_(parameters[name] - start, alpha=step)
        for (a, b), scaling in self.pairs.items():
            strength = strengths.get("*", 0.0) + strengths.get(block_of(a), 0.0)
            down = self._product_gradient(parameters[a], parameters[b], a, b)
            for name, gradient in zip((a, b), down, strict=True):
                parameters[name].sub_(gradient, alpha=rates.get(name, 0.0) * strength * scaling**2)

    def _product_gradient(self, a: Tensor, b: Tensor, name_a: str, name_b: str) -> tuple[Tensor, Tensor]:
        """Gradients of half ||B A - B0 A0||^2 by A and by B, without the product itself."""
        a0, b0 = self.start[name_a], self.start[name_b]
        return b.T @ b @ a - b.T @ b0 @ a0, b @ (a @ a.T) - b0 @ (a0 @ a.T)


def _adapter_pairs(model: nn.Module, start: Mapping[str, Tensor]) -> list[tuple[tuple[str, str], float]]:
    """((name of A, name of B), scaling) of every trainable LoRA pair."""
    pairs = []
    for name in start:
        if ".lora_A." not in name:
            continue
        module, adapter = name.split(".lora_A.")
        adapter = adapter.removesuffix(".weight")
        other = f"{module}.lora_B.{adapter}.weight"
        if other in start:
            pairs.append(((name, other), float(model.get_submodule(module).scaling[adapter])))
    return pairs


class HoldCallback(TrainerCallback):
    """Paces the optimiser's step and pulls after it, both by the number of updates done so far."""

    def __init__(self, holders: Sequence[HoldsWeights], anchor: Anchor):
        self.holders, self.anchor = holders, anchor
        self.rates: list[float] = []

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        pace = math.prod(holder.pace(state.global_step) for holder in self.holders)
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
        strengths: dict[str, float] = {}
        for holder in self.holders:
            for block, strength in holder.pull(state.global_step).items():
                strengths[block] = strengths.get(block, 0.0) + strength
        self.anchor.pull(strengths, rates)
