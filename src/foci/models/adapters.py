"""Adapters: wraps a model by one of PEFT's, and takes adapters out of the blocks that stay frozen."""

import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig, OSFConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from foci.config.adapter import Adapter
from foci.models.architecture import LanguageModel, block_of


@contextmanager
def peft_quiet() -> Iterator[None]:
    """Silences, while open, PEFT's warnings of names that Transformers has renamed."""
    with warnings.catch_warnings():  # PEFT 0.21 asks Transformers 5.23 for a property of an older name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def add_adapter(model: LanguageModel, settings: Adapter) -> PeftModel:
    """Returns the model wrapped by a fresh adapter, the only part of it that trains. The adapter is float32.

    It adapts all linear layers but the embedding and the head. Its weights are drawn from torch's global generator:
    seed it before. Part of them is 0, so that the model answers as before until it is trained (an `osf` model to
    rounding). Raises ValueError where there is an adapter already, or no layer that the adapter could adapt.
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
    with peft_quiet():
        return get_peft_model(model, _peft_config(settings, transposed), autocast_adapter_dtype=True)


def without_adapters(model: LanguageModel, blocks: Container[str]) -> LanguageModel:
    """Takes PEFT's adapters out of some blocks, in place, and returns the model.

    The other adapters keep the weights they were drawn with. The saved adapter names the layers that have one, so that
    it loads as it is. A model that would have no adapter left stays as it was; the trainer refuses it.
    """
    adapted = _adapted(model)
    left = [name for name in adapted if block_of(f"{name}.") not in blocks]
    if len(left) in (0, len(adapted)):
        return model
    assert isinstance(model, PeftModel)
    root = model.get_base_model()
    for name in adapted.keys() - set(left):
        parent, _, child = name.rpartition(".")
        setattr(root.get_submodule(parent), child, adapted[name].get_base_layer())
    for settings in model.peft_config.values():
        settings.target_modules = set(left)
    return model


def unadapted_blocks(model: nn.Module) -> set[str]:
    """Returns the blocks that `without_adapters` took the adapters from.

    They have no adapter, but a layer of a name that is adapted in other blocks.
    """
    adapted = _adapted(model)
    kinds = {name.rpartition(".")[2] for name in adapted}
    modules = model.get_base_model().named_modules() if isinstance(model, PeftModel) else ()
    alike = {block_of(f"{name}.") for name, _ in modules if name.rpartition(".")[2] in kinds}
    return alike - {block_of(f"{name}.") for name in adapted}


def _adapted(model: nn.Module) -> dict[str, Any]:
    """Returns the layers that PEFT has adapted, by their names in the base model."""
    modules = model.get_base_model().named_modules() if isinstance(model, PeftModel) else ()
    return {name: module for name, module in modules if isinstance(module, BaseTunerLayer)}


def _peft_config(settings: Adapter, transposed: bool) -> PeftConfig:
    if settings.type == "osf":
        return OSFConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.type == "rslora",
        use_dora=settings.type == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed,
    )
