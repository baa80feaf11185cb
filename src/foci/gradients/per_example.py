"""Squared gradient norms of every example and parameter, from one forward and one backward pass over a batch.

Examples of a causal language model do not influence each other, so the gradient of example b depends on row b alone.
The gradient of a matrix follows from the inputs and output gradients of linear maps and lookups (`factors`). Vectors
(norms, biases) are small: every example gets its own copy or its own sum. A parameter that is used in any other way
gets a gradient from autograd and is listed in `Recorder.unknown`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers.pytorch_utils import Conv1D

from foci.gradients.factors import Use, precision


class _Tap(torch.autograd.Function):
    """Calls `record` with the gradient of an output and with saved tensors.

    Autograd saves these tensors, so that activation checkpointing can drop and recompute them. `_anchor` makes the
    output require a gradient.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, _anchor: Tensor, record: Callable[..., None], *kept: Tensor) -> Tensor:
        ctx.save_for_backward(*kept)
        ctx.record = record
        return output.detach()  # not a view: some models change the output in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors  # read once: a checkpoint returns them only once
        with torch.autocast(grad.device.type, enabled=False):
            ctx.record(grad, *kept)
        return (grad, *[None] * (2 + len(kept)))


def tapped(output: Tensor, anchor: Tensor, record: Callable[..., None], *kept: Tensor) -> Tensor:
    """Returns the output; the backward pass calls `record` with its gradient and the tensors `kept`.

    `anchor` requires a gradient, so that the output does.
    """
    return _Tap.apply(output, anchor, record, *kept)  # type: ignore[no-any-return]


def run_vectors(
    module: nn.Module, forward: Callable[..., Any], own: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> Any:
    """Runs a module whose parameters are vectors (a norm) with others for each example, (examples, *shape) by name."""
    if len(next(iter(own.values()))) == 1:
        with _parameters_of(module, {name: copy[0] for name, copy in own.items()}):
            return forward(*inputs)

    def single(own: Mapping[str, Tensor], *inputs: Tensor) -> Any:
        with _parameters_of(module, own):
            output = forward(*(value[None] for value in inputs))
        return tree_map(lambda made: made[0], output)  # some return several tensors

    return torch.vmap(single)(own, *inputs)


class Recorder:
    """Records the squared gradient norm of each trainable parameter for each of `count` examples.

    `examples` are the rows that run through the model at the moment, the first axis of every activation. After
    `finish`, `squares` has the squared norms by parameter. Those of parameters in `unknown` are wrong and must be
    computed in another way.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], count: int) -> None:
        self.parameters, self.count = parameters, count
        self.examples = slice(0, count)
        self.squares: dict[Tensor, Tensor] = {}
        self.unknown: set[Tensor] = set()
        self.copies: dict[Tensor, Tensor] = {}
        self.sums: dict[Tensor, Tensor] = {}
        for p in self.parameters:
            self.squares[p] = torch.zeros(self.count, dtype=precision(p), device=p.device)
            if p.ndim == 1:
                self.copies[p] = p.detach().repeat(self.count, 1).requires_grad_()
                self.sums[p] = torch.zeros(self.copies[p].shape, dtype=precision(p), device=p.device)
        self.anchor = torch.zeros((), device=self.parameters[0].device, requires_grad=True)
        self.in_trunk, self.in_head, self.checkpoints = False, False, False
        self.calls: Counter[Tensor] = Counter()
        self.without_grad: set[Tensor] = set()
        self.recorded: set[Tensor] = set()
        self.lookups: dict[Tensor, Tensor] = {}
        self.head_rows: dict[Tensor, Tensor] = {}
        self.uses: dict[Tensor, list[Use]] = defaultdict(list)

    @contextmanager
    def recording(self, model: nn.Module) -> Iterator[None]:
        """Records the trainable parameters of `model` while open; they get no gradient of their own."""
        self.checkpoints = any(getattr(m, "gradient_checkpointing", False) and m.training for m in model.modules())
        with ExitStack() as stack:
            for module in model.modules():
                own = [p for p in module.parameters(recurse=False) if p is not None]
                if any(p in self.squares for p in own):
                    vectors = all(p.ndim == 1 for p in own) and not any(True for _ in module.children())
                    run = self._run_vectors if vectors else self._run_matrices
                    stack.enter_context(forward_of(module, partial(run, module, module.forward)))
            yield

    @contextmanager
    def trunk(self) -> Iterator[None]:
        """Marks the forward pass over all examples, without the LM head."""
        self.in_trunk = True
        yield
        self.in_trunk = False

    @contextmanager
    def head(self, examples: slice) -> Iterator[None]:
        """Marks forward and backward passes of the LM head over some of the examples."""
        before, self.examples, self.in_head = self.examples, examples, True
        yield
        for weight, uses in self.uses.items():
            self.squares[weight][examples] += Use.squares(uses)
            if weight in self.lookups:
                self._keep_head_rows(weight, uses, examples)
            elif self.calls[weight]:
                self.unknown.add(weight)
        self.uses.clear()
        self.examples, self.in_head = before, False

    def finish(self) -> None:
        """Completes `squares` after the backward pass. Raises RuntimeError if a use of a parameter was not recorded."""
        lost = self.without_grad - self.recorded
        if lost and not self.checkpoints:  # the model itself runs them without gradients, wholly or in part
            self.unknown |= lost
        elif lost:
            raise RuntimeError(
                f"{len(lost)} weights were used without gradients and no backward pass reached them, first of shape "
                f"{tuple(next(iter(lost)).shape)}: activation checkpointing must have use_reentrant=False; enable it "
                "with that setting, or turn it off"
            )
        for weight, uses in self.uses.items():
            if weight in self.head_rows or len({use.ids is None for use in uses}) > 1:
                self.unknown.add(weight)
            else:
                self.squares[weight] += Use.squares(uses)
        for vector, total in self.sums.items():
            grad = self.copies[vector].grad
            self.squares[vector] = (total if grad is None else total + grad).square().sum(1)
        self.unknown |= {p for p in self.parameters if p.grad is not None}

    def _keep_head_rows(self, weight: Tensor, uses: Sequence[Use], examples: slice) -> None:
        """Keeps the head's gradient at the examples' own tokens; the tied embedding's gradient is added there later."""
        ids = self.lookups[weight][examples]
        if any(use.left is None for use in uses):
            self.unknown.add(weight)
            return
        if weight not in self.head_rows:
            shape = (self.count, ids.shape[1], weight.shape[1])
            self.head_rows[weight] = torch.zeros(shape, dtype=precision(weight), device=weight.device)
        rows = self.head_rows[weight][examples]
        for use in uses:
            assert use.left is not None
            at = ids[:, None].expand(-1, use.left.shape[1], -1)
            rows += use.left.gather(2, at).mT.to(rows.dtype) @ use.right.to(rows.dtype)

    def _by_example(self, tensor: Any, axes: int) -> bool:
        """Returns whether the first axis is that of the examples; a single example may have any shape."""
        if not isinstance(tensor, Tensor):
            return False
        running = self.examples.stop - self.examples.start
        return running == 1 or (tensor.ndim >= axes and tensor.shape[0] == running)

    def _run_vectors(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Runs a module whose parameters are vectors (a norm) with a copy of them for each example."""
        if kwargs or not all(self._by_example(value, 3) for value in args):
            return forward(*args, **kwargs)
        names = {name: p for name, p in module.named_parameters(recurse=False) if p in self.copies}
        return run_vectors(module, forward, {name: self.copies[p][self.examples] for name, p in names.items()}, args)

    def _run_matrices(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Runs any other module and records its linear maps and lookups."""
        with _Uses(self, isinstance(module, Conv1D) and self._by_example(args[0], 3)):
            return forward(*args, **kwargs)

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Computes F.linear and records it."""
        if not self._by_example(inputs, 3):
            return F.linear(inputs, weight, bias)
        output = F.linear(inputs, self._aside(weight), None if bias is None else self._aside(bias))
        return self._recorded_linear(output, inputs, weight, bias)

    def transposed(self, bias: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """Computes the addmm of Transformers' Conv1D, whose weight is (inputs, outputs), and records it."""
        output = torch.addmm(self._aside(bias), inputs, self._aside(weight))
        return self._recorded_linear(output, inputs, weight, bias, transposed=True)

    def embedding(self, ids: Tensor, weight: Tensor, padding_idx: int | None = None, **settings: Any) -> Tensor:
        """Computes F.embedding and records it. Ids with one row for all examples are repeated."""
        running = self.examples.stop - self.examples.start
        if ids.ndim > 1 and ids.shape[0] == 1:
            ids = ids.expand(running, *ids.shape[1:])
        plain = settings.get("max_norm") is None and not settings.get("scale_grad_by_freq")
        if not plain or not self._by_example(ids, 2):
            return F.embedding(ids, weight, padding_idx, **settings)
        output = F.embedding(ids, self._aside(weight))
        padding = None if padding_idx is None else padding_idx % len(weight)
        flat = ids.reshape(running, -1)
        if self.in_trunk and weight in self.squares:
            self.lookups[weight] = flat
        return self._recorded(output, weight, partial(self._record_lookup, self.examples, weight, padding), ids)

    def _aside(self, weight: Tensor) -> Tensor:
        """Returns a recorded parameter without its gradient; a weight that was computed keeps its own graph."""
        return weight.detach() if weight in self.squares else weight

    def _recorded_linear(
        self, output: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool = False
    ) -> Tensor:
        record = partial(self._record_linear, self.examples, weight, bias, transposed)
        if weight in self.squares:
            return self._recorded(output, weight, record, inputs)
        return self._recorded(output, bias, record) if bias in self.squares else output

    def _recorded(self, output: Tensor, weight: Tensor | None, record: Callable[..., None], *kept: Tensor) -> Tensor:
        assert weight is not None
        if weight not in self.squares:
            return output
        self.calls[weight] += self.in_trunk
        if not torch.is_grad_enabled():
            self.without_grad.add(weight)
        return tapped(output, self.anchor, record, *kept)

    def _record_linear(
        self, examples: slice, weight: Tensor, bias: Tensor | None, transposed: bool, grad: Tensor, *inputs: Tensor
    ) -> None:
        running = examples.stop - examples.start
        grad = grad.reshape(running, -1, grad.shape[-1])
        if bias in self.sums:
            self.sums[bias][examples] += grad.sum(1, dtype=self.sums[bias].dtype)
            self.recorded.add(bias)
        if inputs:
            values = inputs[0].detach().reshape(running, -1, inputs[0].shape[-1])
            self._record_use(examples, weight, Use(values, grad) if transposed else Use(grad, values))

    def _record_lookup(self, examples: slice, weight: Tensor, padding: int | None, grad: Tensor, ids: Tensor) -> None:
        running = examples.stop - examples.start
        ids, grad = ids.reshape(running, -1), grad.reshape(running, -1, grad.shape[-1])
        if padding is not None:
            grad = grad.masked_fill((ids == padding)[..., None], 0.0)
        if weight in self.head_rows:
            self.squares[weight][examples] += 2 * (self.head_rows[weight][examples] * grad).sum((1, 2))
        self._record_use(examples, weight, Use(None, grad, ids))

    def _record_use(self, examples: slice, weight: Tensor, use: Use) -> None:
        self.recorded.add(weight)
        if self.in_head or self.calls[weight] > 1:
            self.uses[weight].append(use)
        else:
            self.squares[weight][examples] += Use.squares([use])


class _Uses(TorchFunctionMode):
    """Sends the linear maps and lookups of a module's forward to a recorder, while open."""

    def __init__(self, recorder: Recorder, conv1d: bool) -> None:
        super().__init__()
        self.recorder, self.conv1d = recorder, conv1d

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear:
            func = self.recorder.linear
        elif func is F.embedding:
            func = self.recorder.embedding
        elif func is torch.addmm and self.conv1d:
            func = self.recorder.transposed
        return func(*args, **(kwargs or {}))


@contextmanager
def forward_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Gives a module another `forward` while open."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


@contextmanager
def _parameters_of(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    before = {name: module._parameters[name] for name in values}
    module._parameters.update(values)  # type: ignore[arg-type]
    try:
        yield
    finally:
        module._parameters.update(before)
