"""LoRA layers that apply their adapter to some rows of a batch alone, so that both models answer in one pass.

Most of the time of a token goes into reading the weights. With the untouched model in row 0 and the learned one in
row 1 they are read once for both. PEFT's own way for batches of several adapters (`adapter_names`) gathers and scatters
rows in each layer, which takes more time than it saves here.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

UNTOUCHED, LEARNED, BOTH = 0, 1, 2
"""Who answers: one of the two models, or both, the untouched one in row 0 and the learned one in row 1."""
FEW = 4
"""Tokens, at most, whose adapter is computed in float32 on a processor."""
_FIRST = {UNTOUCHED: sys.maxsize, LEARNED: 0, BOTH: 1}


class Adapted:
    """The LoRA layers of a model. `use` says to which rows of a batch the adapter is applied from now on."""

    def __init__(self, layers: Sequence[LoraLinear]) -> None:
        self.first = _FIRST[UNTOUCHED]
        for layer in layers:
            layer.__dict__["forward"] = partial(self._forward, _Adapter.of(layer), layer.base_layer)

    @staticmethod
    def of(model: PreTrainedModel, layers: Sequence[BaseTunerLayer]) -> "Adapted | None":
        """Changes the layers of a model so; returns None, and changes nothing, where they are not all of that kind.

        They are where each is LoRA on a linear layer and nothing else, and gets a batch as (rows, ..., width): a layer
        of a mixture of experts gets its tokens without their rows. A pass over one token in two rows proves it.
        """
        plain = [layer for layer in layers if isinstance(layer, LoraLinear) and _is_plain(layer)]
        return Adapted(plain) if plain and len(plain) == len(layers) and _keep_rows(model, plain) else None

    def use(self, who: int) -> None:
        """Makes that model answer, or both in a batch of two rows."""
        self.first = _FIRST[who]

    def _forward(
        self, adapter: "_Adapter", base: Any, x: Float[Tensor, "rows ... wide"]
    ) -> Float[Tensor, "rows ... out"]:
        """Returns x W^T + bias, and beyond the first rows + scale (x A^T) B^T."""
        y = F.linear(x, base.weight, base.bias)
        if x.shape[0] - self.first == 1 and x.dim() == 3:
            adapter.add(x[-1], y[-1])
        elif self.first < x.shape[0]:
            adapter.add(x[self.first :].flatten(0, -2), y[self.first :].view(-1, y.shape[-1]))
        return y


@dataclass(frozen=True)
class _Adapter:
    """The matrices of one LoRA layer, A^T (wide, rank) and scale B^T (rank, out); `exact` are both in float32."""

    down: Tensor
    up: Tensor
    exact: tuple[Tensor, Tensor]

    @staticmethod
    def of(layer: Any) -> "_Adapter":
        name = next(iter(layer.lora_A))
        down, up = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
        exact = down.float().t().contiguous(), (up.float() * layer.scaling[name]).t().contiguous()
        made = [matrix.to(layer.base_layer.weight.dtype) for matrix in exact]
        return _Adapter(made[0], made[1], exact)

    def add(self, x: Float[Tensor, "tokens wide"], y: Float[Tensor, "tokens out"]) -> None:
        """Adds scale (x A^T) B^T to y, in place.

        A processor takes longer to prepare a product in half precision than to compute a small one in float32.
        """
        if x.is_cpu and len(x) <= FEW:
            y.add_(x.float().mm(self.exact[0]).mm(self.exact[1]))
        else:
            y.addmm_(x @ self.down, self.up)


def _is_plain(layer: LoraLinear) -> bool:
    """Returns whether a layer adds (x A^T) B^T to a linear layer, by one adapter: no DoRA, no bias of its own."""
    (name, *more) = layer.lora_A
    return (
        not more
        and type(layer.base_layer) is nn.Linear
        and not layer.lora_variant
        and not layer.fan_in_fan_out
        and all(type(part[name]) is nn.Linear and part[name].bias is None for part in (layer.lora_A, layer.lora_B))
    )


def _keep_rows(model: PreTrainedModel, layers: Sequence[nn.Module]) -> bool:
    shapes: dict[nn.Module, torch.Size] = {}

    def note(layer: nn.Module, given: tuple[Any, ...]) -> None:
        shapes[layer] = given[0].shape if len(given) == 1 else torch.Size()

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    ids = torch.zeros(2, 1, dtype=torch.long, device=model.device)
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return all(len(shape) > 2 and shape[0] == 2 for shape in (shapes.get(layer, ()) for layer in layers))
