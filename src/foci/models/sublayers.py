"""Tells the linear layers of attention from those of the MLPs, by how they behave and not by their names.

A transformer layer has parts in which a token reads other tokens, and parts in which it reads itself alone. The first
are attention (or what stands in its place, such as a state-space mixer), the second the MLP. `sublayers` runs 8 tokens
and finds out which is which, so that no list of architectures is needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.errors import hint
from foci.models.architecture import evaluating, is_layer, sample_ids
from foci.models.targets import Targets


def chosen(model: PreTrainedModel, targets: Targets, wanted: str | Sequence[str]) -> Targets:
    """Returns those of `targets` that `Adapter.targets` means; all of them for all-linear.

    A name in a list means every layer whose name is it or ends in it: `down_proj`, `layers.3.mlp.down_proj`. Raises
    ValueError for a name that no layer has, and where no layer belongs to such a part.
    """
    if wanted == "all-linear":
        return targets
    names = [name.removesuffix(".weight") for name in (*targets.modules, *targets.parameters)]
    if isinstance(wanted, str):
        found = {
            name for part, kind in sublayers(model, names).items() if kind == wanted for name in _within(names, part)
        }
        if not found:
            raise ValueError(
                f"adapter.targets is {wanted}, but none of the layers of {type(model).__name__} that can be adapted "
                f"belongs to {_PARTS[wanted]} (they are {_ends(names)}); name layers in a list, or use all-linear"
            )
    else:
        for one in wanted:
            if not any(name == one or name.endswith(f".{one}") for name in names):
                raise ValueError(
                    f"adapter.targets names {one!r}, but no layer of {type(model).__name__} that can be adapted is "
                    f"called so; {hint(one, _ends(names).split(', '))}"
                )
        found = {name for name in names if any(name == one or name.endswith(f".{one}") for one in wanted)}
    kept = [[n for n in some if n.removesuffix(".weight") in found] for some in (targets.modules, targets.parameters)]
    return Targets(*kept)


def sublayers(model: PreTrainedModel, names: Sequence[str]) -> dict[str, str]:
    """Returns "attention" or "mlp" for each part of each transformer layer that holds one of the names, by its name.

    A part is a child of a layer, such as `model.layers.3.self_attn`. It runs twice on 8 tokens, the second time with
    all but the last one negated: where the last token's output changes, tokens read each other.
    """
    parts = {
        f"{name}.{child}": module
        for name, layer in model.named_modules()
        if is_layer(name)
        for child, module in layer.named_children()
        if _within(names, f"{name}.{child}")
    }
    found: dict[str, str] = {}
    hooks = [module.register_forward_hook(_Watch(name, found), with_kwargs=True) for name, module in parts.items()]
    try:
        ids = sample_ids(model)
        with torch.no_grad(), evaluating(model):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


_PARTS = {"attention": "attention", "mlp": "an MLP"}


class _Watch:
    """A forward hook that notes in `found` whether its module lets tokens read each other."""

    def __init__(self, name: str, found: dict[str, str]) -> None:
        self.name, self.found = name, found

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        negated = [_negated(value) for value in args]
        named = {key: _negated(value) for key, value in kwargs.items()}
        before, after = (_first(made).float() for made in (output, module.forward(*negated, **named)))
        apart = (before[..., -1, :] - after[..., -1, :]).abs().max()
        tolerance = 1e-4 if _first(output).dtype in (torch.float32, torch.float64) else 2e-2
        self.found[self.name] = "attention" if apart > tolerance * before.abs().max() else "mlp"


def _negated(value: Any) -> Any:
    """Returns hidden states (..., token, width) with all tokens but the last negated, and anything else as it is."""
    if not (isinstance(value, Tensor) and value.is_floating_point() and value.dim() in (2, 3)):
        return value
    return torch.cat([-value[..., :-1, :], value[..., -1:, :]], dim=-2)


def _first(output: Any) -> Tensor:
    """Returns the hidden states that a module returns, alone or first in a tuple."""
    made: Tensor = output if isinstance(output, Tensor) else output[0]
    return made


def _within(names: Sequence[str], part: str) -> list[str]:
    """Returns the names of a part and of everything in it."""
    return [name for name in names if name == part or name.startswith(f"{part}.")]


def _ends(names: Sequence[str]) -> str:
    """Returns the last words of the names, each once."""
    return ", ".join(sorted({name.rpartition(".")[2] for name in names})) or "none"
