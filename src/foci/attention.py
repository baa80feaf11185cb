"""What attention heads look at, without an S x S map.

For a query i with target key t(i), attention A_i = softmax(s_i) and the pattern P_i = one-hot(t(i)):

    ||A_i - P_i||^2 = exp(LSE(2 s_i) - 2 LSE(s_i)) - 2 exp(s_i,t(i) - LSE(s_i)) + 1

so a pattern needs two log-sum-exps and one gathered score per query, a block of queries at a time.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foci.focus import Pattern
from foci.models import base_of

NAME = "foci_guided"
QUERIES_AT_A_TIME = 128


def pattern_targets(
    pattern: Pattern, real: Bool[Tensor, "batch key"]
) -> tuple[Int[Tensor, "batch key"], Bool[Tensor, "batch key"]]:
    """The key each query should look at, and whether there is one. `real` is False on padding."""
    seq = real.shape[1]
    at = torch.arange(seq, device=real.device).expand_as(real)
    if pattern == "first":
        return real.int().argmax(1, keepdim=True).expand_as(at), real
    shift = {"same": 0, "previous": -1, "previous-2": -2, "next": 1}[pattern]
    target = at + shift
    inside = (target >= 0) & (target < seq)
    target = target.clamp(0, seq - 1)
    return target, real & inside & real.gather(1, target)


def pattern_loss(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    pattern: Pattern,
    real: Bool[Tensor, "batch key"],
    visible: Bool[Tensor, "#batch #head query key"] | Float[Tensor, "#batch #head query key"] | None = None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
) -> Float[Tensor, ""]:
    """Sum over heads and queries that have a target of ||A_i - P_i||^2 (arXiv 2010.02399, eq. 2, by rows).

    `visible` is what attention itself uses, True or 0 where a query may look, None for causal attention. Query and
    key have as many heads and stand after rotary positions. Differentiable; memory is linear in the keys.
    """
    target, has = pattern_targets(pattern, real)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    blocks = [
        checkpoint(
            _block_loss, query[:, :, a : a + QUERIES_AT_A_TIME], key, target[:, a : a + QUERIES_AT_A_TIME],
            has[:, a : a + QUERIES_AT_A_TIME], _bias(visible, a, query), scaling, softcap,
            use_reentrant=False, preserve_rng_state=False,
        )
        for a in range(0, query.shape[2], QUERIES_AT_A_TIME)
    ]  # fmt: skip
    return torch.stack(blocks).sum()


def _block_loss(
    query: Tensor, key: Tensor, target: Tensor, has: Tensor, bias: Tensor, scaling: float, softcap: float | None
) -> Tensor:
    scores = (query @ key.transpose(-1, -2)) * scaling
    scores = scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + bias
    one = scores.logsumexp(-1)
    two = (2 * scores).logsumexp(-1)
    hit = scores.gather(-1, target[:, None, :, None].expand(-1, scores.shape[1], -1, 1)).squeeze(-1)
    rows = (two - 2 * one).exp() - 2 * (hit - one).exp() + 1
    return rows.masked_fill(~has[:, None], 0.0).sum()


def _bias(visible: Tensor | None, start: int, query: Tensor) -> Tensor:
    """Additive mask of one block of queries; finite, so that a padded query gives no NaN."""
    seq = query.shape[2]
    low = torch.finfo(torch.float32).min / 4
    if visible is None:
        at = torch.arange(seq, device=query.device)
        visible = (at[None, :] <= at[start : start + QUERIES_AT_A_TIME, None])[None, None]
    else:
        visible = visible[:, :, start : start + QUERIES_AT_A_TIME]
    if visible.dtype == torch.bool:
        return torch.zeros(visible.shape, device=query.device).masked_fill(~visible, low)
    return visible.clamp(min=low)


@dataclass
class Guide:
    """What the guided heads of one model are asked for in the micro-batch at hand.

    `targets` maps a layer to {head: pattern}. `scales` maps a pattern to what its summed loss is multiplied by, per
    layer; the trainer puts strength and denominators there. `values` are the losses seen last, by (layer, pattern).
    """

    targets: Mapping[int, Mapping[int, Pattern]]
    real: Bool[Tensor, "batch key"] | None = None
    scales: Mapping[Pattern, float] = field(default_factory=dict)
    values: dict[tuple[int, str], Float[Tensor, ""]] = field(default_factory=dict)

    def check_seen(self) -> None:
        """Refuses a model in which a guided layer never called the attention that was watched."""
        wanted = {(layer, pattern) for layer, heads in self.targets.items() for pattern in heads.values()}
        if unseen := sorted(wanted - set(self.values)):
            raise ValueError(
                f"no attention was seen in guided layers {sorted({layer for layer, _ in unseen})}: they have none, "
                "or do not call Transformers' attention interface; guide other layers"
            )

    def loss(
        self, layer: int, query: Tensor, key: Tensor, visible: Tensor | None, options: Mapping[str, Any]
    ) -> Tensor:
        """The scaled sum over the layer's patterns."""
        heads = self.targets[layer]
        if max(heads) >= query.shape[1]:
            raise ValueError(f"layer {layer} has heads 0 to {query.shape[1] - 1}, guidance names head {max(heads)}")
        assert self.real is not None
        total = query.new_zeros((), dtype=torch.float32)
        for pattern in sorted(set(heads.values())):
            chosen = [h for h, p in heads.items() if p == pattern]
            seen = visible if visible is None or visible.shape[1] == 1 else visible[:, chosen]
            part = pattern_loss(query[:, chosen], key[:, chosen], pattern, self.real, seen, **options)
            part = part * (self.scales[pattern] / len(chosen))
            self.values[layer, pattern] = part.detach()
            total = total + part
        return total


class _Attach(torch.autograd.Function):
    """Gives the auxiliary loss a gradient of 1 whenever the tensor it hangs on gets one: counted once per backward
    pass, under gradient checkpointing too.
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

    Set `guide.real` and `guide.scales` before a forward pass; with `guide.real` None attention is untouched.
    """
    inner = base_of(model)
    before = inner.config._attn_implementation
    attend = _attention_of(inner, before)
    if any("next" in heads.values() for heads in guide.targets.values()):
        raise ValueError(
            "a causal model cannot look at the next token; ask for 'previous-2' (or 'previous') instead of 'next'"
        )
    AttentionInterface.register(NAME, _watching(attend, guide))
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS[before])
    inner.set_attn_implementation(NAME)
    try:
        yield guide
    finally:
        inner.set_attn_implementation(before)


def _attention_of(model: nn.Module, name: str) -> Callable[..., Any]:
    """The attention function that the model runs under `name`; ValueError where it cannot be watched."""
    if name in ("sdpa", NAME):
        return ALL_ATTENTION_FUNCTIONS[name]  # type: ignore[no-any-return]
    eager = getattr(sys.modules[type(model).__module__], "eager_attention_forward", None)
    if name != "eager" or eager is None:
        raise ValueError(
            f"{type(model).__name__} runs attention {name!r}, which foci cannot watch; load the model with "
            "attn_implementation='sdpa' (or 'eager') to guide its heads"
        )
    return eager  # type: ignore[no-any-return]


def _watching(attend: Callable[..., Any], guide: Guide) -> Callable[..., Any]:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> Any:
        output, weights = attend(module, query, key, value, attention_mask, **kwargs)
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        if guide.real is None or layer not in guide.targets or not torch.is_grad_enabled():
            return output, weights
        options = {"scaling": kwargs.get("scaling"), "softcap": kwargs.get("softcap")}
        groups = query.shape[1] // key.shape[1]
        loss = guide.loss(layer, query, key.repeat_interleave(groups, 1), attention_mask, options)
        return _Attach.apply(output, loss), weights

    return attention
