"""Finds the weights that an adapter can sit in: linear layers, and stacks of experts that are no linear layers.

PEFT cannot adapt every linear layer. Its layer maps a tensor's last axis, so a router that returns several tensors and
a layer that works on groups of inputs are left out. Its layer must run, so a layer whose weight a fused kernel reads by
itself (a Mamba mixer's output) is left out too. Layers that share one weight (the blocks of Zamba) would each get an
adapter of their own, and all of these would be merged into the one weight. PEFT adapts a parameter
(`target_parameters`) where the module that owns it runs.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers, get_model_conversion_mapping
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foci.models.architecture import LanguageModel, base_of, block_of, evaluating, sample_ids
from foci.models.quantised import count


@dataclass(frozen=True)
class Targets:
    """Names of modules and of parameters that PEFT shall adapt (`target_modules`, `target_parameters`)."""

    modules: Sequence[str]
    parameters: Sequence[str] = ()


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Returns the names of linear layers (nn.Linear, GPT-2's Conv1D) that PEFT can adapt, without the LM head."""
    head, shared = model.get_output_embeddings(), _shared(model)
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    out = {f"{name}.out_proj" for name, module in model.named_modules() if _is_mamba(module)}
    out |= {name for name, module in linear.items() if id(module.weight) in shared}
    unusual = {n: m for n, m in linear.items() if type(m).forward not in (nn.Linear.forward, Conv1D.forward)}
    out |= _not_linear(model, unusual) if unusual else set()
    return [name for name in linear if name not in out]


def expert_stacks(model: PreTrainedModel) -> list[str]:
    """Returns the names of 3-D parameters of experts: one matrix per expert of a mixture of experts.

    The module that owns them has "Expert" in its class's name. Others have 3-D parameters too, such as recurrent layers
    with one matrix per head, which PEFT cannot adapt.
    """
    shared = _shared(model)
    return [
        f"{name}.{own}"
        for name, module in model.named_modules()
        if "expert" in type(module).__name__.lower()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and id(parameter) not in shared
    ]


def _shared(model: nn.Module) -> set[int]:
    """Returns the ids of parameters that several modules own."""
    counts = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    return {key for key, count in counts.items() if count > 1}


def targets_of(model: PreTrainedModel, modules: Sequence[str] | None = None, *, stacks: bool) -> Targets:
    """Returns what an adapter shall sit in: `modules` (None: all linear layers, and with `stacks` the experts).

    `stacks` says whether the adapter can adapt parameters. PEFT takes some linear layers of mixtures of experts for
    parts of their experts, by their names; those are adapted as parameters.
    """
    every = linear_layers(model) if modules is None else modules
    kept = set(_kept(model, every))
    own = [name for name in every if name in kept]
    if not stacks:
        return Targets(own)
    experts = expert_stacks(model) if modules is None else []
    return Targets(own, [*(f"{name}.weight" for name in every if name not in kept), *experts])


def _kept(model: PreTrainedModel, modules: Sequence[str]) -> Iterable[str]:
    """Returns those of the modules that PEFT's conversion of old configurations leaves alone."""
    config = LoraConfig(target_modules=list(modules))
    if not modules:
        return modules
    convert_peft_config_for_transformers(config, model=model, conversions=get_model_conversion_mapping(model))
    return config.target_modules or ()


def _is_mamba(module: nn.Module) -> bool:
    """Returns whether a module is a Mamba mixer: its fused kernels read the weight of `out_proj` without running it."""
    return all(hasattr(module, name) for name in ("A_log", "D", "out_proj"))


def _not_linear(model: PreTrainedModel, modules: dict[str, nn.Module]) -> set[str]:
    """Returns the names of modules that do not map the last axis of a tensor by their weight, as some routers."""
    found: set[str] = set()

    def noted(name: str) -> Any:
        def note(module: nn.Linear, inputs: tuple[Tensor, ...], output: Any) -> None:
            wide = getattr(module, "out_features", module.weight.shape[0])  # 4-bit weights are stored in another shape
            expected = (*inputs[0].shape[:-1], wide)
            if not isinstance(output, Tensor) or output.shape != expected:
                found.add(name)

        return note

    hooks = [module.register_forward_hook(noted(name)) for name, module in modules.items()]
    try:
        _run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _run(model: LanguageModel) -> Tensor:
    """Returns the logits of 8 tokens."""
    ids = sample_ids(base_of(model))
    with evaluating(model):
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Returns PEFT's outermost layers by their names in the base model; a stack's two parameters share one name."""
    found = {name: module for name, module in _root(model).named_modules() if isinstance(module, BaseTunerLayer)}
    return {name: module for name, module in found.items() if not name.endswith(".base_layer")}


def _root(model: nn.Module) -> nn.Module:
    """Returns the model inside PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def dead_layers(model: LanguageModel) -> set[str]:
    """Returns the names of adapted layers that get no gradient, such as indexers that only choose.

    Takes 8 tokens. A layer that is one of many experts may have met none of them: it counts as alive if a layer of the
    same name, numbers apart, is alive.
    """
    layers = adapted_layers(model)
    own = {name: [p for p in module.parameters() if p.requires_grad] for name, module in layers.items()}
    every = [p for parameters in own.values() for p in parameters]
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = _run(model)
        found = torch.autograd.grad(logits.float().square().mean(), every, allow_unused=True)
    reached = {id(p) for p, g in zip(every, found, strict=True) if g is not None}
    alive = {_pattern(name) for name, parameters in own.items() if any(id(p) in reached for p in parameters)}
    return {name for name in own if _pattern(name) not in alive}


_INSIDE_LAYER = re.compile(r"^.*?\.\d+\.")


def _pattern(name: str) -> str:
    """Returns a name with its numbers replaced."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


@dataclass(frozen=True)
class Coverage:
    """The share of the matrix weights (embedding and LM head apart) that an adapter changes, and the rest by name.

    `left_out` has the share of each kind of weight by its name inside a layer, largest first; `*` stands for numbers.
    """

    share: float
    left_out: dict[str, float]

    def words(self) -> str:
        """Returns one sentence; empty where less than one weight in 200 is left out."""
        if self.share >= 0.995:
            return ""
        some = [f"{name} ({share:.0%})" for name, share in list(self.left_out.items())[:4] if share >= 0.005]
        rest = f": {', '.join(some)}" if some else ""
        return f"the adapter reaches {self.share:.0%} of the matrix weights; the others stay as they are{rest}"


def coverage(model: nn.Module) -> Coverage:
    """Returns which matrix weights of the layers an adapter reaches. A model without adapter trains all of its weights.

    Matrices of an adapter itself, embeddings and the LM head are not counted.
    """
    adapted = adapted_layers(model)
    inside = {id(p) for module in adapted.values() for p in _adapted_weights(module)}
    own = {id(p) for module in adapted.values() for p in module.parameters()}
    own -= {id(p) for module in adapted.values() for p in module.get_base_layer().parameters()}
    total, left = 0, dict[str, int]()
    for name, p in _root(model).named_parameters():
        if id(p) in own or p.ndim < 2 or not block_of(name).startswith("layers."):
            continue
        total += count(p)
        if id(p) not in inside and not (p.requires_grad and not adapted):
            kind = _pattern(_INSIDE_LAYER.sub("", name.replace(".base_layer", "")).removesuffix(".weight"))
            left[kind] = left.get(kind, 0) + count(p)
    if not total:
        return Coverage(1.0, {})
    shares = {name: count / total for name, count in sorted(left.items(), key=lambda item: -item[1])}
    return Coverage(1.0 - sum(shares.values()), shares)


def parameters_of(module: Any) -> list[str]:
    """Returns the names of the parameters that nested layers of PEFT adapt; none for a layer that adapts a module."""
    found = []
    while isinstance(module, BaseTunerLayer):
        found.append(getattr(module, "parameter_name", None))
        module = module.base_layer
    return [name for name in found if name is not None]


def _adapted_weights(module: Any) -> list[Tensor]:
    """Returns the base weights that one of PEFT's layers changes: several of a stack of experts."""
    base = module.get_base_layer()
    return [getattr(base, name) for name in parameters_of(module) or ["weight"]]
