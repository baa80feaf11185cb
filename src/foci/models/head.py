"""The LM head of a model, and the model's own way from the head's output to its logits.

    logits = head_of(model).logits(hidden)              # hidden: what enters the head

Some models scale, cap or cut the head's output. `head_of` runs the model once on 8 tokens and keeps the outputs of all
other parts. Afterwards the model's own `forward` can be run on any output of the head at no cost: the other parts only
repeat what they said. So no list of multipliers and caps is needed, and none can be missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from transformers import PreTrainedModel

from foci.models.architecture import base_of, equal_logits, evaluating, precision_of, sample_ids


@dataclass(frozen=True)
class Head:
    """The LM head: logits = finish(module(hidden)), without `finish` module(hidden) itself.

    `finish` maps the module's output (..., rows of its weight) to the model's logits (..., vocab).
    """

    module: nn.Module
    finish: Callable[[Tensor], Tensor] | None = None

    def logits(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... vocab"]:
        """Returns the model's logits for the hidden states that its head receives."""
        raw: Tensor = self.module(hidden)
        return raw if self.finish is None else self.finish(raw)


@dataclass(frozen=True)
class _Way:
    """The facts of one forward pass: its inputs, and the outputs of the parts before the head, by name.

    `direct`: the model returns its head's output as it is. `made_for` is the head that was there.
    """

    made_for: tuple[object, ...]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Any]
    direct: bool = False


_WAYS: WeakKeyDictionary[PreTrainedModel, _Way] = WeakKeyDictionary()
_NAMES: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, list[str]]] = WeakKeyDictionary()


def head_of(model: nn.Module) -> Head:
    """Returns the LM head with the model's own way from its output to logits.

    The first call for a model runs it on 8 tokens, to find that way and to prove it. Raises ValueError, with the
    model's name, if it has no LM head, or if its logits are computed from more than one output of the head (tolerance:
    1e-4 of the largest logit, in half precision 2e-2).
    """
    base = base_of(model)  # type: ignore[arg-type]
    module = base.get_output_embeddings()
    if module is None:
        raise ValueError(f"{type(base).__name__} has no LM head (get_output_embeddings() is None)")
    weight = getattr(module, "weight", None)
    made_for = (type(module), getattr(weight, "device", None), getattr(weight, "dtype", None))
    way = _WAYS.get(base)
    if way is None or way.made_for != made_for:
        way = _WAYS[base] = _find(model, base, module, made_for)
    return Head(module, None if way.direct else partial(_finish, base, module, way))


def _find(model: nn.Module, base: PreTrainedModel, module: nn.Module, made_for: tuple[object, ...]) -> _Way:
    """Finds the way on 8 tokens, and proves it on others: logits that depend on more than the head's output differ."""
    ids = sample_ids(base)
    raw, _, inputs, outputs = _heard(model, base, module, ids)
    way = _Way(made_for, inputs, outputs, direct=_own(base, module, _Way(made_for, inputs, outputs), raw) is raw)
    raw, theirs, *_ = _heard(model, base, module, ids.flip(1)[:, 3:])
    with torch.no_grad():
        ours = raw if way.direct else _finish(base, module, way, raw)
    if ours.shape != theirs.shape or not equal_logits(_numbers(ours), _numbers(theirs), precision_of(raw.dtype)):
        raise _refused(base, module, "other logits than follow from it")
    return way


def _heard(
    model: nn.Module, base: PreTrainedModel, module: nn.Module, ids: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Any]]:
    """Runs the model; returns the head's output, the logits, the inputs, and the outputs of the other parts by name."""
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), evaluating(model), _listening(model, base, module) as (raw, outputs):
        logits: Tensor = model(**inputs, use_cache=False).logits
    if len(raw) != 1:
        raise _refused(base, module, f"{len(raw)} outputs")
    return raw[0], logits, inputs, outputs


def _numbers(logits: Tensor) -> Tensor:
    """Returns float32 without NaN and infinities: a model that diverged is not another architecture."""
    return logits.float().nan_to_num()


def _refused(base: PreTrainedModel, module: nn.Module, got: str) -> ValueError:
    return ValueError(
        f"{type(base).__name__} (model type {base.config.model_type!r}) is not supported: a forward pass must compute "
        f"its logits from one output of its LM head ({type(module).__name__}), got {got}; use a model with one LM head "
        "as its last part"
    )


def _finish(base: PreTrainedModel, module: nn.Module, way: _Way, raw: Tensor) -> Tensor:
    flat = raw.reshape(1, -1, raw.shape[-1])
    logits = _own(base, module, way, flat)
    if logits.shape[:-1] != flat.shape[:-1]:
        raise _refused(base, module, f"logits of shape {tuple(logits.shape)} from {tuple(flat.shape)}")
    return logits.reshape(*raw.shape[:-1], logits.shape[-1])


def _own(base: PreTrainedModel, module: nn.Module, way: _Way, raw: Tensor) -> Tensor:
    """Returns the logits of the model's own `forward` where its head's output is `raw`, (1, token, rows of weight)."""
    said = {base.get_submodule(name): output for name, output in way.outputs.items()} | {module: raw}
    with replaced(base, {part: _Said(part, output) for part, output in said.items()}):
        logits: Tensor = type(base).forward(base, **way.inputs, use_cache=False).logits
    return logits


class _Said(nn.Module):
    """Stands in for a part of a model: returns the same output whatever it receives, and has the part's attributes."""

    def __init__(self, part: nn.Module, output: Any) -> None:
        super().__init__()
        object.__setattr__(self, "part", part)  # not a child: its parameters belong to the model
        self.output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["part"], name)

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.output


@contextmanager
def replaced(base: nn.Module, stand_ins: Mapping[nn.Module, nn.Module]) -> Iterator[None]:
    """Puts other modules into the places of some parts of `base` while open, wherever a part is named."""
    places = _places(base, stand_ins)
    for parent, leaf, part in places:
        setattr(parent, leaf, stand_ins[part])
    try:
        yield
    finally:
        for parent, leaf, part in places:
            setattr(parent, leaf, part)


def _places(base: nn.Module, parts: Mapping[nn.Module, object]) -> list[tuple[nn.Module, str, nn.Module]]:
    """Returns (parent, name, part) of each part, wherever it is named. A walk with LoRA takes 6 ms, so names are kept.

    Names are looked for again where one of them means another part now.
    """
    known = _NAMES.setdefault(base, WeakKeyDictionary())
    if any(not _named(base, part, known.get(part)) for part in parts):
        names: dict[nn.Module, list[str]] = {part: [] for part in parts}
        for name, part in base.named_modules(remove_duplicate=False):
            if part in names:
                names[part].append(name)
        known.update(names)
    split = [(*name.rpartition(".")[::2], part) for part in parts for name in known[part]]
    return [(base.get_submodule(above), leaf, part) for above, leaf, part in split]


def _named(base: nn.Module, part: nn.Module, names: Sequence[str] | None) -> bool:
    """Returns whether a part is found under the names that were kept."""
    if not names:
        return False
    try:
        return all(base.get_submodule(name) is part for name in names)
    except AttributeError:
        return False


@contextmanager
def _listening(model: nn.Module, base: nn.Module, head: nn.Module) -> Iterator[tuple[list[Tensor], dict[str, Any]]]:
    """Collects the head's outputs, and by name those of the outermost parts that run before the head, while open."""
    raw, outputs, stack = list[Tensor](), dict[str, Any](), list[nn.Module]()
    around: set[nn.Module] = set()  # what contains the head
    for name, part in model.named_modules(remove_duplicate=False):
        if part is head:
            words = name.split(".")
            around |= {model.get_submodule(".".join(words[:n])) for n in range(len(words))}
    names = {part: name for name, part in base.named_modules() if part not in around}

    def enter(part: nn.Module, _inputs: Any) -> None:
        stack.append(part)

    def leave(part: nn.Module, _inputs: Any, output: Any) -> None:
        stack.pop()
        if part is head:
            raw.append(output)
        elif not raw and part in names and (not stack or stack[-1] in around):
            outputs[names[part]] = output

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield raw, outputs
    finally:
        for hook in hooks:
            hook.remove()
