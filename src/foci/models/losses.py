"""The NLL of tokens in nats without whole logits, and its weighted mean.

The head of a language model computes (batch, seq, vocab) logits, of which a loss needs one number per token. Here only
the positions that count reach the head, a few hundred at a time, and their logits are computed again in the backward
pass instead of being kept.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from foci.focus import Batch
from foci.models import fsdp
from foci.models.architecture import base_of
from foci.models.head import Head, head_of, replaced
from foci.models.long_rows import layout_now, read_packed
from foci.models.padding import check_padding, check_side, leading, moved, together, warn_of_memory

SLICE_ELEMENTS = 3 * 2**22
"""Logits held at a time, 48 MiB in float32. In half precision 1.5 times as many, 36 MiB.

Both sizes are above 32 MiB because glibc may keep freed memory of up to that size: float32 parts of 32 MiB had three to
five times the peak memory (LOG.md).
"""


@contextmanager
def captured_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """Makes forward passes of `model` (wrapped or not) stop before the LM head, while open.

    Yields a list to which each pass appends the head's input, (batch, seq, hidden); the logits that the pass returns
    have a last axis of 0. The model's own `forward` runs, so that DDP's hooks and autocast work. If FSDP2 shards the
    model, its output has the head's input too (`hidden_states`), because FSDP2 hooks the backward pass on outputs.
    """
    base, head = base_of(model), head_of(model).module
    stand_in = _StandIn(head)
    hook = (
        base.register_forward_hook(stand_in.add_hidden_states, prepend=True) if fsdp.root(model) is not None else None
    )
    try:
        with replaced(base, {head: stand_in}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)  # a view, which stays as it is
            yield stand_in.inputs
    finally:
        if hook is not None:
            hook.remove()


class _StandIn(nn.Module):
    """Stands in for the LM head: keeps the head's input and returns logits with a last axis of 0."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        object.__setattr__(self, "weight", getattr(head, "weight", None))  # some models look at its dtype

    def forward(self, hidden: Tensor) -> Tensor:
        self.inputs.append(hidden)
        return hidden[..., :0].clone()

    def add_hidden_states(self, _model: nn.Module, _inputs: object, output: ModelOutput) -> ModelOutput:
        """Adds the kept inputs to the model's output."""
        output["hidden_states"] = tuple(self.inputs)
        return output


def check_readable(model: nn.Module, batch: Batch) -> None:
    """Raises ValueError, with the model's name, if foci would misread its head, or its padding where there is some.

    Warns if the batch changes how the model reads later ones. The first call for a model runs it on a few tokens.
    """
    head_of(model)
    warn_of_memory(model, batch.input_ids.shape[1])
    if not bool(batch.attention_mask.all()):
        check_side(batch.attention_mask)
        check_padding(model)


def hidden_states(model: nn.Module, batch: Batch) -> Float[Tensor, "batch seq hidden"]:
    """Returns the LM head's input at every position. The model reads rows with their padding on the right.

    Rows that would change each other are read in several passes (`together`).
    """
    check_readable(model, batch)
    before = leading(batch.attention_mask)
    on_left = bool(before.any())
    ids, mask = batch.input_ids, batch.attention_mask
    if on_left:
        ids, mask = moved(ids, before), moved(mask, before)
    if (layout := layout_now(mask)) is not None:
        hidden = read_packed(partial(_read, model), ids, mask, layout)
    elif len(groups := together(model, mask)) == 1 and groups[0][1] == ids.shape[1]:
        hidden = _read(model, ids, None, mask)
    else:
        parts = [_read(model, ids[rows, :width], None, mask[rows, :width]) for rows, width in groups]
        parts = [F.pad(part, (0, 0, 0, ids.shape[1] - part.shape[1])) for part in parts]
        hidden = torch.cat(parts)[torch.cat([rows for rows, _ in groups]).argsort().to(parts[0].device)]
    return moved(hidden, -before) if on_left else hidden


def _read(model: nn.Module, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Returns the LM head's input in one forward pass over padded rows (`mask`), or over long ones (`positions`)."""
    where = {"attention_mask": mask} if positions is None else {"position_ids": positions}
    with captured_hidden(model) as captured:
        model(input_ids=ids, **where, use_cache=False)
    if len(captured) != 1:
        raise RuntimeError(
            f"{type(base_of(model)).__name__}: one forward pass called the LM head {len(captured)} times, expected "
            "once; foci cannot take a loss from this architecture"
        )
    return captured[0]


def logits_nll(logits: Float[Tensor, "*axes vocab"], targets: Int[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Returns -log p(target) in nats, in float32 or better.

    >>> logits_nll(torch.zeros(2, 4), torch.tensor([1, 3]))  # ln 4
    tensor([1.3863, 1.3863])
    """
    half = logits.dtype in (torch.bfloat16, torch.float16)
    nll = F.cross_entropy((logits.float() if half else logits).flatten(0, -2), targets.flatten(), reduction="none")
    return nll.view(targets.shape)


def head_nll(
    head: Head, hidden: Float[Tensor, "token hidden"], targets: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """Returns -log p(target) in nats, in float32 or better, with at most `SLICE_ELEMENTS` logits at a time.

    The logits are computed again in the backward pass. Supports double backward. (torch's chunked
    `linear_cross_entropy` does the same in one call; side by side it was slower on CPUs, and it returns bfloat16 losses
    for bfloat16 inputs: `benchmarks/loss.py`.)
    """

    def nll(hidden: Tensor, targets: Tensor) -> Tensor:
        return logits_nll(head.logits(hidden), targets)

    size = slice_size(head, hidden)
    head = cast_head(head, hidden.device.type)
    if len(targets) <= size:
        return nll(hidden, targets)
    slices = zip(hidden.split(size), targets.split(size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([nll(h, t) for h, t in slices])
    # The trick of `preserve_rng_state=False`: a head draws no random numbers.
    return torch.cat([checkpoint(nll, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in slices])


def top_entropy(logits: Float[Tensor, "*axes vocab"], top: int = 20) -> Float[Tensor, "*axes"]:
    """Returns the entropy, in nats, of the `top` likeliest tokens, their probabilities scaled to sum to 1.

    In float32 or better; between 0 (one token is certain) and ln(top). A vocabulary of fewer tokens counts as a whole.

    >>> top_entropy(torch.tensor([0.0, 0.0, 0.0, -9.0]), top=3)  # ln 3
    tensor(1.0986)
    """
    best = logits.topk(min(top, logits.shape[-1]), dim=-1).values
    half = best.dtype in (torch.bfloat16, torch.float16)
    return torch.special.entr((best.float() if half else best).softmax(-1)).sum(-1)


@torch.no_grad()
def head_entropy(
    head: Head, hidden: Float[Tensor, "token hidden"], targets: Int[Tensor, " token"]
) -> Float[Tensor, "2 token"]:
    """Returns the NLL of the targets and `top_entropy`, from one pass over the head in slices; without a gradient."""
    size = slice_size(head, hidden)
    head = cast_head(head, hidden.device.type)
    parts = []
    for some, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = head.logits(some)
        parts.append(torch.stack([logits_nll(logits, wanted), top_entropy(logits)]))
    return torch.cat(parts, 1)


def slice_size(head: Head, hidden: Float[Tensor, "token hidden"]) -> int:
    """Returns how many positions may have logits at a time (`SLICE_ELEMENTS`)."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    return max(1, (SLICE_ELEMENTS * 3 // 2 if dtype.itemsize == 2 else SLICE_ELEMENTS) // vocabulary(head))


def cast_head(head: Head, device: str) -> Head:
    """Returns the head in autocast's precision, cast once: autocast itself would cast it for every call."""
    if type(head.module) is not nn.Linear or not torch.is_autocast_enabled(device):
        return head
    return replace(head, module=CastLinear(head.module, torch.get_autocast_dtype(device)))


class CastLinear(nn.Module):
    """A linear layer whose weights are cast to another precision; gradients reach the original weights."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.cast = linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.cast[0], self.cast[1])


def vocabulary(head: Head) -> int:
    """Returns the number of rows of the head's weight."""
    weight: Tensor = head.module.weight  # type: ignore[assignment]
    return weight.shape[0]


def token_nll(
    model: nn.Module, batch: Batch, where: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, "batch seq"]:
    """Returns the negative log-likelihood of every token given those before it, in nats; token t's stands at t.

    It is 0 where there is none: at a row's first token, at padding, at labels `IGNORED`, and where `where` is False
    (those positions never reach the LM head). Differentiable, in float32 or better whatever the model computes in, and
    on the batch's device, wherever the model's layers are.
    """
    wanted = batch.predicted() if where is None else batch.predicted() & where
    return placed(head_nll(head_of(model), *_predicting(model, batch, wanted)), wanted)


def token_entropy(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, "batch seq"], Float[Tensor, "batch seq"]]:
    """Returns the NLL of every predicted token and the column `ENTROPY`, both in nats, 0 elsewhere; no gradient."""
    wanted = batch.predicted()
    nll, entropy = head_entropy(head_of(model), *_predicting(model, batch, wanted))
    return placed(nll, wanted), placed(entropy, wanted)


def _predicting(model: nn.Module, batch: Batch, wanted: Bool[Tensor, "batch seq"]) -> tuple[Tensor, Tensor]:
    """Returns the head's inputs that predict the tokens in `wanted`, (token, hidden), and these tokens, (token,)."""
    hidden = hidden_states(model, batch)
    picked = hidden[:, :-1][wanted[:, 1:].to(hidden.device)]
    return picked, batch.labels[:, 1:][wanted[:, 1:]].to(hidden.device)


def placed(values: Float[Tensor, " token"], wanted: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
    """Returns the values at the positions in `wanted`, row by row, and 0 elsewhere, on the device of `wanted`."""
    zeros = torch.zeros(wanted.shape, dtype=values.dtype, device=wanted.device)
    return zeros.masked_scatter(wanted, values.to(wanted.device))


def weighted_mean(
    nll: Float[Tensor, "batch seq"], weights: Float[Tensor, "batch seq"], total: Float[Tensor, ""] | None = None
) -> Float[Tensor, ""]:
    """Returns sum(w * nll) / sum(w) in nats (arXiv 2407.16920, eq. 1); 0 if no token has weight.

    `total` replaces the denominator: the sum of weights over the whole update and all processes. Raises ValueError if
    the shapes differ.
    """
    if nll.shape != weights.shape:
        raise ValueError(
            f"weights must have the shape of the losses, {tuple(nll.shape)}, got {tuple(weights.shape)}; "
            "give one weight per token: a (batch, 1) weight would be broadcast silently"
        )
    total = weights.sum() if total is None else total
    return (nll * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))
