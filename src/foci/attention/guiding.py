"""Adds pattern losses to training: each guided layer attaches its loss to its own attention output."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from foci.attention.logits import Logits
from foci.attention.patterns import loss_of, of_heads
from foci.attention.targets import AHEAD, Targets, pattern_targets
from foci.attention.watching import Attention, attention_of, check_watched, layer_of, logits_of, watched
from foci.focus import DELIMITER, Batch, Pattern
from foci.models.architecture import base_of
from foci.models.padding import leading, moved


@dataclass
class Guide:
    """The guided heads of one model, and the micro-batch that it is reading.

    `targets` maps a layer to {head: pattern}. `scales` maps a pattern to the factor of its summed loss in each layer
    (strength and denominators); the trainer sets it. `values` are the latest losses, by (layer, pattern). While `real`
    is None, or all scales are 0, attention is not changed.
    """

    targets: Mapping[int, Mapping[int, Pattern]]
    real: Bool[Tensor, "batch key"] | None = None
    scales: Mapping[Pattern, float] = field(default_factory=dict)
    values: dict[tuple[int, str], Float[Tensor, ""]] = field(default_factory=dict)
    delimiters: Bool[Tensor, "batch key"] | None = None

    @property
    def patterns(self) -> list[Pattern]:
        """The patterns that heads are guided to, sorted."""
        return sorted({pattern for heads in self.targets.values() for pattern in heads.values()})

    @property
    def active(self) -> bool:
        """Whether there is a batch and a scale that is not 0."""
        return self.real is not None and any(self.scales.values())

    def read(self, batch: Batch | None) -> None:
        """Sets the batch that `token_nll` hands to the model next; None when its passes are over."""
        if batch is None:
            self.real = self.delimiters = None
            return
        before, column = leading(batch.attention_mask), batch.columns.get(DELIMITER)
        self.real = moved(batch.attention_mask.bool(), before)
        self.delimiters = None if column is None else moved(column > 0, before)

    def counts(self, batch: Batch) -> dict[Pattern, Float[Tensor, ""]]:
        """Returns each pattern's denominator: the number of queries to which it gives a key."""
        real, column = batch.attention_mask.bool(), batch.columns.get(DELIMITER)
        delimiters = None if column is None else column > 0
        return {p: pattern_targets(p, real, delimiters)[1].sum().float() for p in self.patterns}

    def check_seen(self) -> None:
        """Raises ValueError where a guided layer did not call the attention interface in the last forward pass."""
        if not self.active:
            return
        wanted = {(layer, pattern) for layer, heads in self.targets.items() for pattern in heads.values()}
        if unseen := sorted(wanted - set(self.values)):
            raise ValueError(
                f"no attention was seen in guided layers {sorted({layer for layer, _ in unseen})}: they have none, "
                "or do not call Transformers' attention interface; guide other layers"
            )

    def loss(self, layer: int, logits: Logits) -> Float[Tensor, ""]:
        """Returns the scaled sum over the layer's patterns; each pattern's loss is a mean over its heads."""
        heads, count = self.targets[layer], logits.query.shape[1]
        if max(heads) >= count:
            raise ValueError(f"layer {layer} has heads 0 to {count - 1}, guidance names head {max(heads)}")
        assert self.real is not None
        total = logits.query.new_zeros((), dtype=torch.float32)
        for pattern in sorted(set(heads.values())):
            chosen = [head for head, wanted in heads.items() if wanted == pattern]
            targets = Targets.of(pattern, self.real, self.delimiters)
            parts = [loss_of(part, targets) for part in of_heads(logits, chosen)]
            value = torch.stack(parts).sum() * (self.scales[pattern] / len(chosen))
            self.values[layer, pattern] = value.detach()
            total = total + value
        return total


class _Attach(torch.autograd.Function):
    """Gives a loss a gradient of 1 whenever the tensor that it is attached to gets a gradient.

    So it counts once per backward pass, with gradient checkpointing too.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, loss: Tensor) -> Tensor:
        ctx.like = loss.detach()
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, torch.ones_like(ctx.like)


@contextmanager
def guided(model: nn.Module, guide: Guide) -> Iterator[Guide]:
    """While open, the layers in `guide.targets` add their pattern losses to every backward pass.

    Set `guide.real` (or call `guide.read(batch)`) and `guide.scales` before a forward pass. Raises ValueError for a
    model whose attention cannot be watched, and for patterns with later keys in a causal model.
    """
    causal = check_watched(model)
    blind = {layer: heads for layer, heads in guide.targets.items() if causal.get(layer, True)}
    if ahead := sorted({pattern for heads in blind.values() for pattern in heads.values()} & AHEAD):
        raise ValueError(
            f"a causal model cannot look at later tokens, got {', '.join(map(repr, ahead))} in layers "
            f"{sorted(blind)}; ask for 'previous-2' instead of 'next'"
        )
    inner = base_of(model)  # type: ignore[arg-type]
    attend, mask = attention_of(inner)
    with watched(inner, _guiding(attend, guide), mask):
        yield guide


def _guiding(attend: Attention, guide: Guide) -> Attention:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        output, weights = attend(module, query, key, value, attention_mask, **options)
        layer = layer_of(module)
        if not guide.active or layer not in guide.targets or not torch.is_grad_enabled():
            return output, weights
        loss = guide.loss(layer, logits_of(module, query, key, attention_mask, options))
        return _Attach.apply(output, loss), weights

    return attention
