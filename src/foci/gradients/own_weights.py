"""Passes over a batch in which every row has weights of its own: theta, plus a change of that row alone.

    own = OwnWeights(model)
    nll, slopes = own.backward(batch, factors)              # the gradient of every row's own loss
    changes = {p: scaled(slope, -rates) for p, slope in slopes.items()}
    own.losses(later, changes)                              # every row after its own step
    own.tangents(batch, directions)                         # d nll / d eps at theta + eps * direction, by row

The gradient of a matrix is the sum over tokens of an output's gradient times an input (`factors.Use`), and a change is
kept as these factors: y = W x + sum_t left_t (right_t . x). So no row needs a copy of W, and the backward pass computes
no gradient of W. The tangents are exact (forward mode); what linear maps gave in the pass of `backward` is used again.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from foci.focus import Batch
from foci.gradients.changes import Change, Changes, NoOwnWeightsError, looked_up, mapped, taken
from foci.gradients.factors import Use
from foci.gradients.per_example import forward_of, run_vectors, tapped
from foci.models.head import head_of
from foci.models.losses import hidden_states, logits_nll, placed, slice_size
from foci.models.padding import together

_NO_DERIVATIVE = ("forward gradient", "ZeroTensors are immutable")
"""Words of torch about a forward derivative that does not fit, or that an operation would change in place."""


class OwnWeights(TorchFunctionMode):
    """Sends the linear maps and lookups of a model through the weights of each row, while one of its passes runs.

    Raises NoOwnWeightsError where something else is trained than matrices of linear maps and embeddings, their biases,
    and the vectors of norms, where the model lies on several devices, and from a pass in which weights are used in
    another way.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.parameters = {
            p: None for p in model.parameters() if p.requires_grad
        }  # in order: sums of numbers depend on it
        if len(devices := {p.device for p in model.parameters()}) > 1:
            raise NoOwnWeightsError(f"the model lies on {len(devices)} devices")
        self.norms = [module for module in model.modules() if _is_norm(module) and self._trains(module)]
        for module in model.modules():
            if self._trains(module) and not _is_matrix(module) and module not in self.norms:
                raise NoOwnWeightsError(type(module).__name__)
        self.count = 0
        self.changes: Changes = {}
        self.rows: Tensor | None = None  # in the LM head: the row of each position
        self.uses: dict[Tensor, list[Use]] | None = None
        self.flat: dict[Tensor, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
        self.copies: dict[Tensor, Tensor] = {}
        self.sums: dict[Tensor, Tensor] = {}
        self.kept: list[tuple[Tensor, int]] | None = None
        self.said: Iterator[tuple[Tensor, int]] | None = None
        self.of: Tensor | None = None

    def _trains(self, module: nn.Module) -> bool:
        return any(p in self.parameters for p in module.parameters(recurse=False))

    def backward(
        self, batch: Batch, factors: Float[Tensor, "batch seq"], changes: Changes | None = None, *, keep: bool = False
    ) -> tuple[Float[Tensor, "batch seq"], Changes]:
        """Returns every token's NLL, and by parameter each row's gradient of sum(factors * NLL).

        `keep` keeps what the linear maps give, for `tangents`.
        """
        self.uses, self.flat, self.sums = defaultdict(list), defaultdict(list), {}
        self.kept = [] if keep else None
        before = {p: p.grad for p in self.parameters}
        for p in self.parameters:
            p.grad = None
        try:
            with torch.enable_grad(), self._on(batch, changes or {}):
                self.copies = {p: copy.requires_grad_() for p, copy in self.copies.items()}
                nll = self._backward(batch, factors)
            if others := [p for p in self.parameters if p.grad is not None]:
                raise NoOwnWeightsError(f"{len(others)} parameters are used in other ways than linear maps")
            return nll, self._gradients()
        finally:
            self.uses = None
            for p, grad in before.items():
                p.grad = grad

    def losses(self, batch: Batch, changes: Changes) -> Float[Tensor, "batch seq"]:
        """Returns every token's NLL in nats."""
        with torch.no_grad(), self._on(batch, changes):
            picked, targets, rows, wanted = self._picked(batch)
            size = slice_size(head_of(self.model), picked)
            parts = zip(picked.split(size), targets.split(size), rows.split(size), strict=True)
            return placed(torch.cat([self._nll(*part) for part in parts]), wanted)

    def tangents(self, batch: Batch, directions: Changes, of: Tensor | None = None) -> Float[Tensor, "direction seq"]:
        """Returns d nll / d eps of every token at theta + eps * direction, eps = 0, in nats.

        `batch` is that of the last `backward` with `keep`, at theta; direction n moves row `of[n]` of it (None: row n).
        """
        assert self.kept is not None
        batch = batch if of is None else batch.take(of)
        self.said, self.of = iter(self.kept), of
        try:
            with torch.no_grad(), _forward_mode(), sdpa_kernel(SDPBackend.MATH), self._on(batch, directions):
                self.copies = {
                    p: forward_ad.make_dual(p.detach().repeat(self.count, 1), directions[p])  # type: ignore[arg-type]
                    for p in self.copies
                    if p in directions
                }
                picked, targets, rows, wanted = self._picked(batch)
                size = slice_size(head_of(self.model), picked)
                parts = zip(picked.split(size), targets.split(size), rows.split(size), strict=True)
                found = [forward_ad.unpack_dual(self._nll(*part)).tangent for part in parts]
            if any(tangent is None for tangent in found):
                return torch.zeros_like(wanted, dtype=picked.dtype)
            return placed(torch.cat(found), wanted)
        except RuntimeError as error:
            if not _lacks_derivative(error):
                raise
            raise NoOwnWeightsError(str(error)) from error
        finally:
            self.said = self.of = self.kept = None

    @contextmanager
    def _on(self, batch: Batch, changes: Changes) -> Iterator[None]:
        groups = together(self.model, batch.attention_mask)
        if len(groups) > 1 or groups[0][1] != batch.input_ids.shape[1]:
            raise NoOwnWeightsError("rows are read apart")
        self.count, self.changes = len(batch.input_ids), changes
        self.anchor = torch.zeros((), device=batch.input_ids.device, requires_grad=True)
        vectors = [p for module in self.norms for p in module.parameters(recurse=False) if p in self.parameters]
        self.copies = {p: p.detach().repeat(self.count, 1) for p in vectors}
        if self.said is None:
            self.copies = {p: copy + changes[p] if p in changes else copy for p, copy in self.copies.items()}  # type: ignore[operator]
        with ExitStack() as stack:
            for module in self.norms:
                stack.enter_context(forward_of(module, partial(self._norm, module, module.forward)))
            with self:
                yield

    def _norm(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs or not all(isinstance(a, Tensor) and len(a) == self.count and a.ndim > 2 for a in args):
            raise NoOwnWeightsError(type(module).__name__)
        names = {name: self.copies[p] for name, p in module.named_parameters(recurse=False) if p in self.copies}
        return run_vectors(module, forward, names, args)

    def _picked(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Runs the model to its head; returns the head's inputs, the tokens they predict, their rows, and where."""
        wanted = batch.predicted()
        hidden = hidden_states(self.model, batch)
        places = wanted[:, 1:].to(hidden.device)
        targets = batch.labels[:, 1:][wanted[:, 1:]].to(hidden.device)
        return hidden[:, :-1][places], targets, places.nonzero()[:, 0], wanted

    def _nll(self, hidden: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        self.rows = rows
        try:
            return logits_nll(head_of(self.model).logits(hidden), targets)
        finally:
            self.rows = None

    def _backward(self, batch: Batch, factors: Tensor) -> Tensor:
        picked, targets, rows, wanted = self._picked(batch)
        counts = factors[wanted].to(picked)
        read, size = picked.detach().requires_grad_(), slice_size(head_of(self.model), picked)
        kept, self.kept, parts = self.kept, None, []  # a model that recomputes activations calls its maps again
        for start in range(0, len(targets), size):
            some = slice(start, start + size)
            nll = self._nll(read[some], targets[some], rows[some])
            (nll * counts[some]).sum().backward()  # type: ignore[no-untyped-call]
            parts.append(nll.detach())
        assert read.grad is not None
        if picked.requires_grad:
            picked.backward(read.grad)  # type: ignore[no-untyped-call]
        self.kept = kept
        return placed(torch.cat(parts), wanted)

    def _gradients(self) -> Changes:
        """Returns what the last backward pass recorded; a vector's gradients are added up, a matrix' are factors."""
        assert self.uses is not None
        found: dict[Tensor, Change] = {}
        for weight in self.parameters:
            uses = list(self.uses.get(weight, ()))
            if weight in self.flat:
                uses.append(_by_row(self.flat[weight], self.count))
            if uses:
                found[weight] = tuple(uses)
            elif weight in self.sums:
                found[weight] = self.sums[weight]
            elif weight in self.copies and (grad := self.copies[weight].grad) is not None:
                found[weight] = grad
        return found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear:
            func = self.linear
        elif func is F.embedding:
            func = self.embedding
        return func(*args, **(kwargs or {}))

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Computes F.linear with each row's own weight and bias."""
        ours = weight in self.parameters or bias in self.parameters
        if ours and self.rows is None and (inputs.ndim < 3 or len(inputs) != self.count):
            raise NoOwnWeightsError(f"a linear map reads {tuple(inputs.shape)} for {self.count} rows")
        fixed = None if bias is None else self._aside(bias)
        if self.said is not None:
            return self._linear_tangent(inputs, weight, fixed, bias)
        output = F.linear(inputs, self._aside(weight), fixed)
        if self.kept is not None and self.rows is None:
            self.kept.append((output.detach(), output._version))
        output = self._changed(output, inputs, weight, bias)
        if self.uses is None or not ours:
            return output
        return tapped(output, self.anchor, partial(self._record, self.rows, weight, bias), inputs)

    def _changed(self, output: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Adds what the changes of a weight and a bias give."""
        if (change := self.changes.get(weight)) is not None:
            output = output + self._mapped(change, inputs)
        if bias is not None and (shift := self.changes.get(bias)) is not None:
            output = output + self._shifts(shift, output)
        return output

    def _linear_tangent(self, inputs: Tensor, weight: Tensor, fixed: Tensor | None, bias: Tensor | None) -> Tensor:
        """Returns the kept output with its tangent: W dx + dW x + db. The LM head's output is computed again."""
        primal, tangent = forward_ad.unpack_dual(inputs)
        if self.rows is None:
            output, version = next(self.said)  # type: ignore[arg-type]
            if output._version != version:
                raise NoOwnWeightsError("an output is changed in place")
            output = output[self.of] if self.of is not None and len(primal) == self.count else output
        else:
            output = F.linear(primal, self._aside(weight), fixed)
        along = None if tangent is None else F.linear(tangent, self._aside(weight))
        if weight in self.changes or bias in self.changes:
            along = self._changed(torch.zeros_like(output) if along is None else along, primal, weight, bias)
        return output if along is None else forward_ad.make_dual(output, along)

    def embedding(self, ids: Tensor, weight: Tensor, padding_idx: int | None = None, **settings: Any) -> Tensor:
        """Computes F.embedding with each row's own weight."""
        if weight not in self.parameters:
            return F.embedding(ids, weight, padding_idx, **settings)
        if settings.get("max_norm") is not None or settings.get("scale_grad_by_freq") or ids.ndim != 2:
            raise NoOwnWeightsError("an embedding is not a plain lookup")
        ids = ids.expand(self.count, -1)
        output = F.embedding(ids, weight.detach())
        change = self.changes.get(weight)
        if change is not None:
            along = looked_up(change, ids)
            output = output + along if self.said is None else forward_ad.make_dual(output, along)
        if self.uses is None:
            return output
        padding = None if padding_idx is None else padding_idx % len(weight)
        return tapped(output, self.anchor, partial(self._record_lookup, weight, padding), ids)

    def _aside(self, weight: Tensor) -> Tensor:
        return weight.detach() if weight in self.parameters else weight

    def _mapped(self, change: Change, inputs: Tensor) -> Tensor:
        if self.rows is None:
            return mapped(change, inputs.reshape(self.count, -1, inputs.shape[-1])).reshape(*inputs.shape[:-1], -1)
        known, counts = self.rows.unique_consecutive(return_counts=True)
        parts = zip(known, inputs.split(counts.tolist()), strict=True)
        return torch.cat([mapped(taken(change, row[None]), part[None])[0] for row, part in parts])

    def _shifts(self, shift: Change, output: Tensor) -> Tensor:
        assert isinstance(shift, Tensor)
        if self.rows is not None:
            return shift[self.rows]
        return shift.view(self.count, *[1] * (output.ndim - 2), -1)

    def _record(self, rows: Tensor | None, weight: Tensor, bias: Tensor | None, grad: Tensor, inputs: Tensor) -> None:
        assert self.uses is not None
        if rows is None:
            grad = grad.reshape(self.count, -1, grad.shape[-1])
            sums = grad.sum(1)
        else:
            sums = grad.new_zeros(self.count, grad.shape[-1]).index_add_(0, rows, grad)
        if bias in self.parameters:
            self.sums[bias] = self.sums[bias] + sums if bias in self.sums else sums
        if weight in self.parameters and rows is not None:
            self.flat[weight].append((rows, grad, inputs.detach()))
        elif weight in self.parameters:
            self.uses[weight].append(Use(grad, inputs.detach().reshape(self.count, -1, inputs.shape[-1])))

    def _record_lookup(self, weight: Tensor, padding: int | None, grad: Tensor, ids: Tensor) -> None:
        assert self.uses is not None
        if padding is not None:
            grad = grad.masked_fill((ids == padding)[..., None], 0.0)
        self.uses[weight].append(Use(None, grad, ids))


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Opens a level of forward derivatives; its first use makes torch load what it says itself is deprecated."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
    with forward_ad.dual_level():
        yield


def _lacks_derivative(error: RuntimeError) -> bool:
    """Returns whether torch says that an operation has no forward derivative, or one that cannot be used.

    >>> _lacks_derivative(NotImplementedError()), _lacks_derivative(RuntimeError("shapes cannot be multiplied"))
    (True, False)
    """
    return isinstance(error, NotImplementedError) or any(words in str(error) for words in _NO_DERIVATIVE)


def _is_matrix(module: nn.Module) -> bool:
    return type(module) is nn.Linear or isinstance(module, nn.Embedding)


def _is_norm(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and all(p.ndim == 1 for p in own) and not any(True for _ in module.children())


def _by_row(parts: Sequence[tuple[Tensor, Tensor, Tensor]], count: int) -> Use:
    """Returns the factors of positions, given with their rows in ascending order, as (rows, most positions, width)."""
    rows, left, right = (torch.cat(some) for some in zip(*parts, strict=True))
    counts = torch.bincount(rows, minlength=count)
    where = torch.arange(int(counts.max()), device=rows.device) < counts[:, None]
    made = []
    for values in (left, right):
        wide = values.new_zeros(*where.shape, values.shape[-1])
        wide[where] = values
        made.append(wide)
    return Use(made[0], made[1])
