"""Wraps a model by an adapter of PEFT, and takes adapters out of blocks that stay frozen."""

import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager

from peft import LoraConfig, OSFConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from foci.config.adapter import Adapter
from foci.models.architecture import LanguageModel, block_of
from foci.models.quantised import is_quantised
from foci.models.sublayers import chosen
from foci.models.targets import Targets, adapted_layers, dead_layers, parameters_of, targets_of


@contextmanager
def peft_quiet() -> Iterator[None]:
    """Hides PEFT's warnings about names that Transformers has renamed, while open."""
    with warnings.catch_warnings():  # PEFT 0.21 asks Transformers 5.23 for a property of an older name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def add_adapter(model: LanguageModel, settings: Adapter) -> PeftModel:
    """Returns the model wrapped by a new adapter. Only the adapter trains; its weights are float32.

    It sits where `settings.targets` says: among all linear layers but the embedding and the head, and the experts of a
    mixture of experts (LoRA and rsLoRA without dropout). Left out are layers that PEFT cannot adapt, such as routers
    that return several tensors, and those that get no gradient; `coverage` says which. Its weights are drawn from
    torch's global generator: seed that before. Part of them is 0, so that the model's logits do not change until it is
    trained (with `osf`: by no more than rounding). Raises ValueError if the model has an adapter already, or no such
    layer.
    """
    if isinstance(model, PeftModel):
        raise ValueError(  # noqa: TRY004
            f"the model already has an adapter ({', '.join(model.peft_config)}); merge_and_unload it first"
        )
    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 stores W transposed
    if settings.type == "osf" and transposed:
        raise ValueError(
            f"{type(model).__name__} has Conv1D layers, and PEFT's OSF adapts nn.Linear alone; use lora, rslora or dora"
        )
    stacks = settings.type in ("lora", "rslora") and not settings.dropout and not transposed
    stacks = stacks and not is_quantised(model)  # PEFT adapts a parameter by its shape, which 4 bits change
    targets = targets_of(model, stacks=stacks)
    if not targets.modules and not targets.parameters:
        raise ValueError(
            f"{type(model).__name__} has no layer that an adapter of PEFT can sit in; train all weights (adapter: null)"
        )
    targets = chosen(model, targets, settings.targets)
    with peft_quiet():
        adapted = get_peft_model(model, _peft_config(settings, targets, transposed), autocast_adapter_dtype=True)
    return _without(adapted, dead_layers(adapted))


def without_adapters(model: LanguageModel, blocks: Container[str]) -> LanguageModel:
    """Removes PEFT's adapters from `blocks` (names as in `block_of`). Changes the model and returns it.

    The other adapters keep their weights. The saved adapter lists the layers that it adapts, so that it loads as it is.
    If no adapter would be left, nothing is removed; the trainer refuses to train such a model.
    """
    if not isinstance(model, PeftModel):
        return model
    return _without(model, {name for name in adapted_layers(model) if block_of(f"{name}.") in blocks})


def _without(model: PeftModel, names: Container[str]) -> PeftModel:
    """Removes the adapters of some layers, all of a stack of experts' at once; nothing if none would be left."""
    layers = adapted_layers(model)
    gone = [name for name in layers if name in names]
    if len(gone) in (0, len(layers)):
        return model
    root = model.get_base_model()
    for name in gone:
        parent, _, child = name.rpartition(".")
        setattr(root.get_submodule(parent), child, layers[name].get_base_layer())
    left = {name: parameters_of(layers[name]) for name in layers if name not in gone}
    for settings in model.peft_config.values():
        settings.target_modules = {name for name, parameters in left.items() if not parameters}
        if any(left.values()):
            settings.target_parameters = [f"{name}.{own}" for name, every in left.items() for own in every]
    return model


def unadapted_blocks(model: nn.Module) -> set[str]:
    """Returns the blocks whose adapters `without_adapters` removed.

    Such a block has no adapter, but it has a layer whose name is adapted in other blocks.
    """
    adapted = adapted_layers(model)
    kinds = {name.rpartition(".")[2] for name in adapted}
    modules = model.get_base_model().named_modules() if isinstance(model, PeftModel) else ()
    alike = {block_of(f"{name}.") for name, _ in modules if name.rpartition(".")[2] in kinds}
    return alike - {block_of(f"{name}.") for name in adapted}


def _peft_config(settings: Adapter, targets: Targets, transposed: bool) -> PeftConfig:
    if settings.type == "osf":
        return OSFConfig(target_modules=list(targets.modules), task_type="CAUSAL_LM")
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.type == "rslora",
        use_dora=settings.type == "dora",
        target_modules=list(targets.modules),
        target_parameters=list(targets.parameters) or None,
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed,
    )
