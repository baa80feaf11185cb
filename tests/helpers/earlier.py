"""What the tests of methods that hold weights share: a fresh LoRA, and how far weights have moved."""

import math

import torch
from peft import PeftModel
from torch import nn

import tiny
from foci import models
from foci.models import Adapter


def distance(net: nn.Module, start: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float((p - start[name]).detach().square().sum()) for name, p in net.named_parameters()))


def added(net: PeftModel) -> dict[str, torch.Tensor]:
    """What the adapter adds to each weight."""
    layers = {name: m for name, m in net.named_modules() if hasattr(m, "get_delta_weight")}
    return {name: m.get_delta_weight("default").detach().clone() for name, m in layers.items()}


def wrapped(*, vocab: int = 97) -> PeftModel:
    """A tiny model under a fresh LoRA, always the same."""
    torch.manual_seed(0)
    return models.add_adapter(tiny.build("llama", vocab=vocab), Adapter(r=4, alpha=4))


def moved(net: PeftModel, start: dict[str, torch.Tensor]) -> float:
    """The distance of what the adapter adds from what it added at the start."""
    return math.sqrt(sum(float((delta - start[name]).square().sum()) for name, delta in added(net).items()))
