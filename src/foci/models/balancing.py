"""The balancing loss of the routers of a mixture of experts, which a model adds to its own loss.

A model computes it in its forward pass where its configuration says `output_router_logits: true`. foci's loss takes no
notice of a model's own loss, so this part is taken from the output and added.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from foci.models.architecture import base_of

COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef", "moe_loss_weight")
"""Attributes of a model, or of its configuration, by which it multiplies its balancing loss."""


def is_balanced(model: nn.Module) -> bool:
    """Returns whether the model's configuration asks for a balancing loss."""
    return bool(getattr(base_of(model).config.get_text_config(), "output_router_logits", False))


@contextmanager
def balancing_losses(model: nn.Module) -> Iterator[list[Tensor]]:
    """Yields a list to which each training pass of `model` appends coefficient * balancing loss, while open.

    The list stays empty where the model's configuration asks for no such loss. Passes without gradients are not
    counted. Raises ValueError for a model whose coefficient is not known.
    """
    base, found = base_of(model), list[Tensor]()
    if not is_balanced(base):
        yield found
        return
    coefficient = _coefficient(base)

    def noted(_model: nn.Module, _inputs: object, output: Any) -> None:
        loss = getattr(output, "aux_loss", None)
        if isinstance(loss, Tensor) and loss.requires_grad:
            found.append(coefficient * loss)

    hook = base.register_forward_hook(noted)
    try:
        yield found
    finally:
        hook.remove()


def _coefficient(base: nn.Module) -> float:
    for place in (base, base.config):
        for name in COEFFICIENTS:
            value = getattr(place, name, None)
            if isinstance(value, int | float):
                return float(value)
    raise ValueError(
        f"{type(base).__name__} adds a balancing loss of its routers (output_router_logits: true), but has no factor "
        f"for it: expected one of {', '.join(COEFFICIENTS)}; set output_router_logits: false in its configuration"
    )
