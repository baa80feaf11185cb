"""Nats per token without full logits, and their weighted mean.

The head of a language model makes (batch, seq, vocab) numbers of which one per token is needed. Here only the
positions that count reach it, a few hundred at a time, and each slice is computed again in the backward pass
instead of being kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from foci.focus import Batch
from foci.models import fsdp
from foci.models.architecture import Head, base_of, head_of

SLICE_ELEMENTS = 3 * 2**22
"""Logits held at a time, 48 MiB in float32; half as many again in half precision, 36 MiB.

Both are over 32 MiB, up to which glibc may keep freed memory to itself: float32 slices of 32 MiB took three to five
times the peak memory of these (LOG.md).
"""


@contextmanager
def captured_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """While open, a forward pass of `model` (wrapped or not) stops before the LM head.

    What the head would have read is appended to the list that is yielded, (batch, seq, hidden); the model's
    logits come back with a last axis of 0. The model's own forward runs, so hooks of DDP and autocast hold. Where
    FSDP2 shards the model, its output holds it too (`hidden_states`), as FSDP2 hooks the backward pass on outputs.
    """
    base, head = base_of(model), head_of(model).module
    stand_in = _Keeper(head)
    names = [name for name, module in base.named_modules(remove_duplicate=False) if module is head]
    places = [(base.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
    for parent, leaf in places:
        setattr(parent, leaf, stand_in)
    shown = base.register_forward_hook(stand_in.show, prepend=True) if fsdp.root(model) is not None else None
    try:
        yield stand_in.inputs
    finally:
        if shown is not None:
            shown.remove()
        for parent, leaf in places:
            setattr(parent, leaf, head)


class _Keeper(nn.Module):
    """Stands where the LM head stood: keeps what the head would have read, gives logits of no token."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        object.__setattr__(self, "weight", getattr(head, "weight", None))  # some models look at its dtype

    def forward(self, hidden: Tensor) -> Tensor:
        self.inputs.append(hidden)
        return hidden[..., :0].clone()

    def show(self, _model: nn.Module, _inputs: object, output: ModelOutput) -> ModelOutput:
        """Puts what was kept into the model's output."""
        output["hidden_states"] = tuple(self.inputs)
        return output


def positions(attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Position ids that start at 0 on a row's first real token, whichever side is padded."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def hidden_states(model: nn.Module, batch: Batch) -> Float[Tensor, "batch seq hidden"]:
    """What the LM head reads, for every position. Left padding is honoured by explicit positions."""
    extra = {}
    if not bool(batch.attention_mask[:, 0].all()):
        extra["position_ids"] = positions(batch.attention_mask)
    with captured_hidden(model) as captured:
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **extra)
    if len(captured) != 1:
        raise RuntimeError(
            f"{type(base_of(model)).__name__}: one forward pass called the LM head {len(captured)} times, expected "
            "once; foci cannot take a loss from this architecture"
        )
    return captured[0]


def logits_nll(logits: Float[Tensor, "*axes vocab"], targets: Int[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """-log p(target) in nats, at least float32.

    >>> logits_nll(torch.zeros(2, 4), torch.tensor([1, 3]))  # ln 4
    tensor([1.3863, 1.3863])
    """
    half = logits.dtype in (torch.bfloat16, torch.float16)
    nll = F.cross_entropy((logits.float() if half else logits).flatten(0, -2), targets.flatten(), reduction="none")
    return nll.view(targets.shape)


def head_nll(
    head: Head, hidden: Float[Tensor, "token hidden"], targets: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """-log p(target) in nats, at least float32, never more than `SLICE_ELEMENTS` logits at a time.

    Slices are recomputed in the backward pass. Supports double backward. (torch's chunked
    `linear_cross_entropy` does the same in one call; side by side it was slower on CPUs and returns bfloat16
    losses for bfloat16 inputs: `benchmarks/loss.py`.)
    """

    def nll(hidden: Tensor, targets: Tensor) -> Tensor:
        return logits_nll(head.logits(hidden), targets)

    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    size = max(1, (SLICE_ELEMENTS * 3 // 2 if dtype.itemsize == 2 else SLICE_ELEMENTS) // vocabulary(head))
    head = _cast(head, kind)
    if len(targets) <= size:
        return nll(hidden, targets)
    slices = zip(hidden.split(size), targets.split(size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([nll(h, t) for h, t in slices])
    # The trick of `preserve_rng_state=False`: a head draws no random numbers.
    return torch.cat([checkpoint(nll, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in slices])


def _cast(head: Head, device: str) -> Head:
    """The head in autocast's precision, once: autocast itself casts the weight again for every slice."""
    if type(head.module) is not nn.Linear or not torch.is_autocast_enabled(device):
        return head
    return replace(head, module=_Linear(head.module, torch.get_autocast_dtype(device)))


class _Linear(nn.Module):
    """A linear layer's weights in another precision, differentiable."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.cast = [linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype)]

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.cast[0], self.cast[1])


def vocabulary(head: Head) -> int:
    """Rows of the head's weight."""
    weight: Tensor = head.module.weight  # type: ignore[assignment]
    return weight.shape[0]


def token_nll(
    model: nn.Module, batch: Batch, where: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, "batch seq"]:
    """Negative log-likelihood of every token given those before it, in nats; that of token t stands at t.

    0 where there is none: a row's first token, padding, labels `IGNORED`, and where `where` is False (those
    positions never reach the LM head). Differentiable; at least float32 whatever the model computes in; on the
    batch's device, wherever the model's layers are.
    """
    wanted = batch.predicted() if where is None else batch.predicted() & where
    hidden = hidden_states(model, batch)
    picked = hidden[:, :-1][wanted[:, 1:].to(hidden.device)]
    targets = batch.labels[:, 1:][wanted[:, 1:]].to(hidden.device)
    nll = head_nll(head_of(model), picked, targets).to(wanted.device)
    return torch.zeros(wanted.shape, dtype=nll.dtype, device=nll.device).masked_scatter(wanted, nll)


def weighted_mean(
    nll: Float[Tensor, "batch seq"], weights: Float[Tensor, "batch seq"], total: Float[Tensor, ""] | None = None
) -> Float[Tensor, ""]:
    """sum(w * nll) / sum(w), nats per unit of weight (arXiv 2407.16920, eq. 1). 0 where no token has weight.

    `total` replaces the denominator: the sum of weights over the whole update and all processes.
    """
    if nll.shape != weights.shape:
        raise ValueError(
            f"weights must have the shape of the losses, {tuple(nll.shape)}, got {tuple(weights.shape)}; "
            "a (batch, 1) weight would be broadcast without a word"
        )
    total = weights.sum() if total is None else total
    return (nll * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))
