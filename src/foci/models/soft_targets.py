"""The divergence of a learner from a teacher's distributions, in the same pass over the LM head as the NLL.

    soft_t = T^2 * KL(teacher_t || learner_t)   in nats, at temperature T

over the teacher's k likeliest tokens and one bucket for all others (a token by itself where k is the whole
vocabulary). The gradient on a logit z_j is T (q_j - p_j) for one of the k tokens, and T (q_j - p_rest q_j / q_rest) for
any other, where p is the teacher's probability and q the learner's. It is written out here: automatic differentiation
would keep several arrays of the size of the vocabulary per position.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from foci.focus import Batch, LiveTeacher, SoftTargets
from foci.models import fsdp
from foci.models.architecture import evaluating
from foci.models.head import Head, head_of
from foci.models.losses import CastLinear, cast_head, hidden_states, slice_size

FEWER = 3
"""How many times fewer logits `summed_loss` has at a time than `slice_size` allows: fewer stay in the CPU's cache.

SmolLM2-135M in bfloat16, 1,000 positions, processor seconds of the head: 384 at a time 1.21, 128 at a time 0.96.
"""


@dataclass(frozen=True)
class Held:
    """Soft targets of the positions in `where`, (batch, seq), row by row."""

    where: Bool[Tensor, "batch seq"]
    targets: SoftTargets


def token_losses(
    model: nn.Module, batch: Batch, where: Bool[Tensor, "batch seq"], held: Sequence[Held]
) -> tuple[Float[Tensor, "batch seq"], list[Float[Tensor, "batch seq"]]]:
    """Returns the NLL of every token in `where` and, for each of `held`, soft_t of its tokens; 0 elsewhere.

    In nats, in float32 or better; token t's numbers stand at t. Only positions in `where` or in one of `held` reach the
    LM head. Differentiable once.
    """
    wanted, picked, labels, spread = _picked(model, batch, where, held)
    found = head_losses(head_of(model), picked, labels, spread).to(wanted.device)  # type: ignore[arg-type]

    def placed(values: Tensor, at: Tensor) -> Tensor:
        whole = torch.zeros(wanted.shape, dtype=values.dtype, device=values.device).masked_scatter(wanted, values)
        return torch.where(at, whole, torch.zeros_like(whole))

    return placed(found[0], where), [placed(soft, one.where) for soft, one in zip(found[1:], held, strict=True)]


def summed_loss(
    model: nn.Module,
    batch: Batch,
    factors: Float[Tensor, "batch seq"],
    held: Sequence[Held],
    holds: Sequence[Float[Tensor, "batch seq"]],
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch seq"]]:
    """Returns sum(factors * nll) + sum(hold * soft_t) over all of `held`, in nats, and the NLL where a factor is.

    Where the LM head is frozen (`is_frozen`), the gradient of the hidden states is computed together with the losses:
    the head is passed once forward and once backward, and no logits are kept. Differentiable once.
    """
    if not is_frozen(model):
        nll, softs = token_losses(model, batch, factors > 0, held)
        parts = [(soft * hold).sum() for soft, hold in zip(softs, holds, strict=True)]
        return torch.stack([(nll * factors).sum(), *parts]).sum(), nll
    wanted, picked, labels, spread = _picked(model, batch, factors > 0, held)
    head = head_of(model)
    size, head = max(1, slice_size(head, picked) // FEWER), cast_head(head, picked.device.type)
    full = torch.promote_types(picked.dtype, torch.float32)
    wide = torch.stack([part[wanted].to(picked.device, full) for part in (factors, *holds)])
    arrays = [part for one in spread for part in (one.ids, one.log_probs, one.rest)]
    temperatures = tuple(one.temperature for one in spread)
    total, nll = _OnePass.apply(picked, head.module, size, labels, wide, temperatures, *arrays)
    zeros = torch.zeros(wanted.shape, dtype=nll.dtype, device=wanted.device)
    return total, zeros.masked_scatter(wanted, nll.to(wanted.device)) * (factors > 0)


def is_frozen(model: nn.Module) -> bool:
    """Returns whether the LM head is a linear layer that does not train, whose outputs are the logits."""
    head = head_of(model)  # type: ignore[arg-type]
    frozen = not any(parameter.requires_grad for parameter in head.module.parameters())
    return type(head.module) is nn.Linear and head.finish is None and frozen


def _picked(
    model: nn.Module, batch: Batch, where: Bool[Tensor, "batch seq"], held: Sequence[Held]
) -> tuple[Tensor, Tensor, Tensor, list[SoftTargets]]:
    """Returns the positions that reach the head, its inputs there, the labels, and the soft targets there."""
    predicted = batch.predicted()
    wanted = predicted & where
    for one in held:
        wanted = wanted | (predicted & one.where)
    hidden = hidden_states(model, batch)
    picked = hidden[:, :-1][wanted[:, 1:].to(hidden.device)]
    labels = batch.labels[:, 1:][wanted[:, 1:]].to(hidden.device)
    return wanted, picked, labels, [_spread(one, wanted).to(hidden.device) for one in held]


def _spread(held: Held, wanted: Bool[Tensor, "batch seq"]) -> SoftTargets:
    """Returns the targets at all positions in `wanted`; where nothing is held, all mass is in the rest."""
    at = (held.where & wanted)[wanted]
    targets, count = held.targets, len(at)
    k = targets.ids.shape[1]
    at = at.to(targets.ids.device)
    ids = torch.arange(k, device=targets.ids.device).expand(count, k).clone()  # no token twice
    ids[at] = targets.ids.long()
    log_probs = torch.full((count, k), -torch.inf, device=targets.ids.device, dtype=targets.log_probs.dtype)
    log_probs[at] = targets.log_probs
    rest = torch.zeros(count, device=targets.ids.device, dtype=targets.rest.dtype)
    rest[at] = targets.rest
    return replace(targets, ids=ids, log_probs=log_probs, rest=rest)


def head_losses(
    head: Head,
    hidden: Float[Tensor, "token hidden"],
    labels: Int[Tensor, " token"],
    soft: Sequence[SoftTargets],
) -> Float[Tensor, "loss token"]:
    """Returns the NLL of the labels in row 0, and soft_t of each of `soft` in the rows after it, in nats.

    The logits of a few hundred positions exist at a time and are computed again in the backward pass.
    """

    def losses(hidden: Tensor, labels: Tensor, *parts: Tensor) -> Tensor:
        logits = head.logits(hidden)
        half = logits.dtype in (torch.bfloat16, torch.float16)
        return _Losses.apply(logits.float() if half else logits, labels, temperatures, *parts)

    temperatures = tuple(one.temperature for one in soft)
    size = slice_size(head, hidden)
    head = cast_head(head, hidden.device.type)
    arrays = [part for one in soft for part in (one.ids, one.log_probs, one.rest)]
    if len(labels) <= size:
        return losses(hidden, labels, *arrays)
    slices = zip(hidden.split(size), labels.split(size), *(part.split(size) for part in arrays), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([losses(*one) for one in slices], 1)
    return torch.cat([checkpoint(losses, *s, use_reentrant=False, preserve_rng_state=False) for s in slices], 1)


class _Losses(torch.autograd.Function):
    """NLL and soft losses of logits, with the gradient written out (the formulas of this module)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, temperatures: tuple[float, ...], *arrays: Tensor) -> Tensor:
        """Returns (1 + len(temperatures), token) losses; `arrays` are ids, log_probs and rest of each teacher."""
        found, kept = _found(logits, labels, temperatures, arrays)
        ctx.save_for_backward(*kept)
        ctx.temperatures = temperatures
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Returns the gradient of the logits, (token, vocab)."""
        result = _slope(gradient, ctx.temperatures, ctx.saved_tensors)
        return (result, *(None for _ in range(2 + 3 * len(ctx.temperatures))))


class _OnePass(torch.autograd.Function):
    """The sum of factors * losses, with the gradient of the hidden states computed at once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: nn.Module,
        size: int,
        labels: Tensor,
        factors: Tensor,
        temperatures: tuple[float, ...],
        *arrays: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns the sum and the NLL of every token; `factors` is (1 + len(temperatures), token)."""
        weight, bias = _weights(head)
        total, nlls, slopes = factors.new_zeros(()), [], []
        slices = zip(
            hidden.split(size), labels.split(size), factors.split(size, 1), *(part.split(size) for part in arrays),
            strict=True,
        )  # fmt: skip
        for some, wanted, scale, *parts in slices:
            logits = F.linear(some.to(weight.dtype), weight, bias)
            half = logits.dtype in (torch.bfloat16, torch.float16)
            losses, kept = _found(logits.float() if half else logits, wanted, temperatures, parts)
            total = total + (losses * scale).sum()
            nlls.append(losses[0])
            slopes.append((_slope(scale, temperatures, kept).to(weight.dtype) @ weight).to(hidden.dtype))
        ctx.save_for_backward(torch.cat(slopes) if slopes else torch.zeros_like(hidden))
        nll = torch.cat(nlls) if nlls else factors.new_zeros(0)
        ctx.mark_non_differentiable(nll)
        return total, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _nll: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Returns the gradient of the hidden states."""
        (slopes,) = ctx.saved_tensors
        return (slopes * gradient.to(slopes.dtype), *(None for _ in range(len(ctx.needs_input_grad) - 1)))


def _weights(head: nn.Module) -> tuple[Tensor, Tensor | None]:
    if isinstance(head, CastLinear):
        return head.cast
    assert isinstance(head, nn.Linear)
    return head.weight, head.bias


def _found(
    logits: Tensor, labels: Tensor, temperatures: tuple[float, ...], arrays: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns the losses, (1 + len(temperatures), token), and what `_slope` needs of them."""
    log_q = logits.log_softmax(-1)
    found = [-log_q.gather(1, labels[:, None])[:, 0]]
    kept, probs = [], log_q.exp()
    for n, temperature in enumerate(temperatures):
        ids, log_p, rest = (array.to(log_q.dtype) if array.is_floating_point() else array
                            for array in arrays[3 * n : 3 * n + 3])  # fmt: skip
        log_q_t = log_q if temperature == 1 else (logits / temperature).log_softmax(-1)
        q = probs if temperature == 1 else log_q_t.exp()
        q_rest = _rest(q, ids)
        divergence = _terms(log_p, log_q_t.gather(1, ids)).sum(1) + _terms(rest, q_rest.log())
        found.append(temperature**2 * divergence)
        kept += [ids, log_p.exp(), torch.where(q_rest > 0, rest.exp() / q_rest, torch.zeros_like(q_rest))]
        kept += [] if temperature == 1 else [q]
    return torch.stack(found), [probs, labels, *kept]


def _slope(gradient: Tensor, temperatures: tuple[float, ...], kept: Sequence[Tensor]) -> Tensor:
    """Returns the gradient of the logits, (token, vocab), for the gradient of the losses."""
    probs, labels, *kept = kept
    factor, adds = gradient[0].clone(), [(labels[:, None], -gradient[0][:, None])]
    total: Tensor | None = None
    for n, temperature in enumerate(temperatures, start=1):
        ids, p, ratio = kept[:3]
        own = temperature != 1
        q, kept = (kept[3], kept[4:]) if own else (probs, kept[3:])
        pull = temperature * gradient[n]
        adds.append((ids, pull[:, None] * (ratio[:, None] * q.gather(1, ids) - p)))
        if own:
            part = q * (pull * (1 - ratio))[:, None]
            total = part if total is None else total.add_(part)
        else:
            factor = factor + pull * (1 - ratio)
    result = probs * factor[:, None]
    if total is not None:
        result += total
    for at, values in adds:
        result.scatter_add_(1, at, values)
    return result


def _rest(q: Float[Tensor, "token vocab"], ids: Int[Tensor, "token k"]) -> Float[Tensor, " token"]:
    """Returns the probability of all tokens but `ids`: a sum, which is exact where 1 - sum(q[ids]) would cancel."""
    if ids.shape[1] >= q.shape[1]:
        return torch.zeros_like(q[:, 0])
    taken = q.gather(1, ids)
    rest = q.scatter_(1, ids, 0).sum(1)
    q.scatter_(1, ids, taken)
    return rest


def _terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Returns p (log p - log q), 0 where p is 0."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p))


def live_targets(model: nn.Module, batch: Batch, where: Bool[Tensor, "batch seq"], teacher: LiveTeacher) -> SoftTargets:
    """Returns what `model` says at the positions in `where` (all of them predicted), without a gradient."""
    with torch.no_grad(), evaluating(model):
        hidden = hidden_states(model, batch)
        picked = hidden[:, :-1][where[:, 1:].to(hidden.device)]
        return top_k(head_of(model), picked, teacher)  # type: ignore[arg-type]


@torch.no_grad()
def top_k(head: Head, hidden: Float[Tensor, "token hidden"], teacher: LiveTeacher) -> SoftTargets:
    """Returns the k likeliest tokens of the head's distribution after each hidden state, and the mass of the rest."""
    size = slice_size(head, hidden)
    head = cast_head(head, hidden.device.type)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for some in hidden.split(size):
        logits = head.logits(some)
        half = logits.dtype in (torch.bfloat16, torch.float16)
        log_p = ((logits.float() if half else logits) / teacher.temperature).log_softmax(-1)
        best, ids = log_p.topk(min(teacher.k, log_p.shape[1]), dim=-1)
        parts.append((ids, best, _rest(log_p.exp_(), ids).log()))
    ids, log_probs, rest = (torch.cat(arrays) for arrays in zip(*parts, strict=True))
    return SoftTargets(ids, log_probs, rest, teacher.temperature)


class Start:
    """The model as training started: its adapter switched off, or a frozen copy where there is none.

    `goes_on`: the adapter was trained before and belongs to the start, so that its weights are copied. Of a model that
    is sharded and has no adapter, the weights that train are copied too: each process keeps those of its parts.
    """

    def __init__(self, model: nn.Module, *, goes_on: bool = False) -> None:
        adapted, sharded = isinstance(model, PeftModel), fsdp.root(model) is not None
        self.copy = None if adapted or sharded else copy.deepcopy(model).requires_grad_(False)
        copied = goes_on if adapted else sharded
        fsdp.reset(model)
        trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad and copied)
        self.weights = {name: fsdp.local(p).clone() for name, p in trained}

    @contextmanager
    def of(self, model: nn.Module, unwrapped: nn.Module) -> Iterator[nn.Module]:
        """Yields what to call for the start's answers; afterwards `model` (wrapped or not) is as it was.

        PEFT asks for gradients of all adapter weights when its `disable_adapter` ends, of frozen ones too.
        """
        if self.copy is not None:
            yield self.copy
            return
        if self.weights and fsdp.root(unwrapped) is not None:
            with fsdp.parts_replaced(unwrapped, self.weights):
                yield model
            return
        if self.weights:
            own = {name: p for name, p in unwrapped.named_parameters() if name in self.weights}
            now = {name: p.data for name, p in own.items()}
            try:
                for name, parameter in own.items():
                    parameter.data = self.weights[name]
                yield model
            finally:
                for name, parameter in own.items():
                    parameter.data = now[name]
            return
        asked = [(parameter, parameter.requires_grad) for parameter in unwrapped.parameters()]
        try:
            with unwrapped.disable_adapter():  # type: ignore[operator]
                yield model
        finally:
            for parameter, wanted in asked:
                parameter.requires_grad_(wanted)
