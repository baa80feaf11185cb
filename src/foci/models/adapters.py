"""What is trained in place of a model's weights: settings, the wrapped model, and a K-Adapter's folder."""

import json
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, OSFConfig, PeftConfig, PeftModel, PeftType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foci.config.adapter import DEFAULTS, READ_SETTINGS, check_settings
from foci.models.architecture import (
    LanguageModel,
    base_of,
    block_of,
    check_causal,
    fingerprint,
    head_of,
    layer_count,
    layer_modules,
)
from foci.models.k_adapter import KAdapter, KAdapterConfig, KAdapterModel

ADAPTERS = ("lora", "rslora", "dora", "osf")
"""Adapter types that PEFT sets up; the names of its documentation."""
NO_CORDA = (
    "CorDA is not set up by foci: it needs a pass over text before training and moves part of each base weight into "
    "the adapter, so that the saved adapter does not fit the untouched base; use lora, rslora, dora or osf, or wrap "
    "the model yourself (peft.tuners.lora.corda.preprocess_corda) and give it to FocusTrainer"
)
"""Why the one adapter that is asked for by name is refused."""
IS_K_ADAPTER = (
    "k_adapter, which cannot be merged into the weights: start from its base model, or give this one to FocusTrainer"
)
"""Why a model with a K-Adapter gets no second one."""


@dataclass(frozen=True)
class Adapter:
    """What is trained in place of the weights: `lora`, `rslora`, `dora` or `osf` as PEFT has them, or `k_adapter`.

    `r` is the rank of each update and `dropout` acts on the adapter's input. The update is scaled by alpha / r;
    `rslora` scales by alpha / sqrt(r) (arXiv 2312.03732), `dora` also learns the norm of each row of the weight
    (2402.09353).
    `osf` (2504.07097) has no such settings: the larger half of each weight's singular directions is frozen, the
    smaller half trains.
    `k_adapter` (2002.01808) has `layers` adapter layers of `depth` transformer layers each, of `width` and `heads`, and
    adds `scale` times its normalised output to what the LM head reads; `gain` and `dropout` as in `KAdapterConfig`.
    """

    type: str = "lora"
    r: int = 16
    alpha: int | float = 32
    dropout: float = 0.0
    layers: int = 3
    depth: int = 2
    width: int = 768
    heads: int = 12
    scale: float = 0.1
    gain: float = 0.0

    def __post_init__(self) -> None:
        if self.type == "corda":
            raise ValueError(NO_CORDA)
        if self.type not in READ_SETTINGS:
            offered = ", ".join(sorted(kind.value.lower() for kind in PeftType))
            raise ValueError(
                f"adapter type {self.type!r} is not one foci sets up ({', '.join(READ_SETTINGS)}). The installed PEFT "
                f"offers {offered}: for another of them, wrap the model with peft.get_peft_model and give it to "
                "FocusTrainer"
            )
        check_settings(self.type, {name: getattr(self, name) for name in DEFAULTS})
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"an adapter needs r >= 1, alpha > 0 and 0 <= dropout < 1, got {self}")
        if min(self.layers, self.depth, self.width, self.heads) < 1 or self.scale <= 0 or self.gain < 0:
            raise ValueError(
                f"a k_adapter needs layers, depth, width and heads >= 1, scale > 0 and gain >= 0, got {self}"
            )


@contextmanager
def peft_quiet() -> Iterator[None]:
    """Inside, without what PEFT says of Transformers' newer names."""
    with warnings.catch_warnings():  # PEFT 0.21 asks Transformers 5.23 for a property of an older name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def add_adapter(model: LanguageModel, settings: Adapter) -> PeftModel | KAdapterModel:
    """Wraps a model by an adapter; only the adapter trains (float32).

    A `k_adapter` is fed from layers of the model, the others adapt all linear layers but embedding and head. Weights
    are drawn from torch's global generator: seed it before. Part of them is 0, so that the model answers as before
    until it is trained (an `osf` model to rounding, a `k_adapter` unless its gain is set). Raises ValueError where
    there is an adapter already, or no layer that the adapter could adapt.
    """
    if isinstance(model, PeftModel):
        raise ValueError(  # noqa: TRY004
            f"the model already has an adapter ({', '.join(model.peft_config)}); merge_and_unload it first"
        )
    if isinstance(model, KAdapterModel):
        raise ValueError(f"the model already has an adapter ({IS_K_ADAPTER})")  # noqa: TRY004
    if settings.type == "k_adapter":
        return _k_adapter(model, settings)
    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 stores W transposed
    if settings.type == "osf" and transposed:
        raise ValueError(
            f"{type(model).__name__} has Conv1D layers, and PEFT's OSF adapts nn.Linear alone; use lora, rslora or dora"
        )
    with peft_quiet():
        return get_peft_model(model, _peft_config(settings, transposed), autocast_adapter_dtype=True)


def spare(model: LanguageModel, still: Container[str]) -> None:
    """Takes the adapters of PEFT out of the blocks in `still`; the others keep the weights they were drawn with.

    The adapter's own settings then name the layers that have one, so that a saved adapter loads as it is. A model with
    a K-Adapter stays as it was, and so does one that would have no adapter left (the trainer refuses it).
    """
    adapted = _adapted(model)
    left = [name for name in adapted if block_of(f"{name}.") not in still]
    if len(left) in (0, len(adapted)):
        return
    assert isinstance(model, PeftModel)
    root = model.get_base_model()
    for name in adapted.keys() - set(left):
        parent, _, child = name.rpartition(".")
        setattr(root.get_submodule(parent), child, adapted[name].get_base_layer())
    for settings in model.peft_config.values():
        settings.target_modules = set(left)


def spared(model: nn.Module) -> set[str]:
    """The blocks without adapters that have a layer of a kind which is adapted in other blocks."""
    adapted = _adapted(model)
    kinds = {name.rpartition(".")[2] for name in adapted}
    modules = model.get_base_model().named_modules() if isinstance(model, PeftModel) else ()
    alike = {block_of(f"{name}.") for name, _ in modules if name.rpartition(".")[2] in kinds}
    return alike - {block_of(f"{name}.") for name in adapted}


def _adapted(model: nn.Module) -> dict[str, Any]:
    """The layers that PEFT has adapted, by their names in the base model."""
    modules = model.get_base_model().named_modules() if isinstance(model, PeftModel) else ()
    return {name: module for name, module in modules if isinstance(module, BaseTunerLayer)}


def _k_adapter(model: PreTrainedModel, settings: Adapter) -> KAdapterModel:
    """The model with a fresh K-Adapter that the first, the last and evenly spaced layers feed."""
    count = layer_count(model)
    if settings.layers > count:
        raise ValueError(
            f"a k_adapter of {settings.layers} layers needs as many in the model, {type(model).__name__} has {count}; "
            "lower layers"
        )
    config = KAdapterConfig(
        hidden=model.config.get_text_config().hidden_size,
        reads=evenly_spaced(settings.layers, count),
        **{name: getattr(settings, name) for name in ("depth", "width", "heads", "dropout", "scale", "gain")},
    )
    return with_k_adapter(model, KAdapter(config))


def evenly_spaced(chosen: int, count: int) -> tuple[int, ...]:
    """`chosen` of `count` layers from the first to the last; one alone is the last.

    >>> evenly_spaced(3, 24), evenly_spaced(1, 24)  # the published choice for 24 layers
    ((0, 11, 23), (23,))
    """
    if chosen == 1:
        return (count - 1,)
    return tuple(number * (count - 1) // (chosen - 1) for number in range(chosen))


def with_k_adapter(model: PreTrainedModel, adapter: KAdapter) -> KAdapterModel:
    """The model wrapped by a K-Adapter; ValueError where its LM head reads something else than its body gives."""
    layers, body, device = layer_modules(model), model.base_model, next(model.parameters()).device
    wrapped = KAdapterModel(model, adapter.to(device), [layers[number] for number in adapter.config.reads], body)
    seen: list[Tensor] = []
    hooks = [
        body.register_forward_hook(lambda _body, _inputs, output: seen.append(output.last_hidden_state)),
        head_of(model).module.register_forward_pre_hook(lambda _head, inputs: seen.append(inputs[0])),
    ]
    try:
        check_causal(model)
    finally:
        for hook in hooks:
            hook.remove()
    if not all(torch.equal(given, read) for given, read in zip(seen[::2], seen[1::2], strict=True)):
        raise ValueError(
            f"{type(model).__name__} cannot have a K-Adapter: what its LM head reads is not the last hidden state of "
            f"its {type(body).__name__}; use lora, rslora, dora or osf"
        )
    return wrapped


def save_k_adapter(model: KAdapterModel, folder: Path, base: str) -> None:
    """Writes the adapter's weights and sizes, the name of its base model and that model's fingerprint."""
    untouched = fingerprint(base_of(model))
    settings = {"type": "k_adapter", "base_model_name_or_path": base, "base_fingerprint": untouched}
    text = json.dumps({**settings, **asdict(model.k_adapter.config)}, indent=2)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
    save_file(model.k_adapter.state_dict(), folder / "adapter_model.safetensors", metadata={"format": "pt"})


def load_k_adapter(model: PreTrainedModel, folder: Path, settings: dict[str, Any]) -> KAdapterModel:
    """The base model with the K-Adapter of a folder; `settings` is what its adapter_config.json says.

    Raises ValueError where the base is not the one that the adapter was trained beside.
    """
    found, expected = fingerprint(model), settings["base_fingerprint"]
    if found != expected:
        raise ValueError(
            f"the K-Adapter {str(folder)!r} was trained beside a model with fingerprint {expected}, "
            f"{settings['base_model_name_or_path']!r} has {found}; put the old base model back"
        )
    sizes = {field.name: settings[field.name] for field in fields(KAdapterConfig)}
    adapter = KAdapter(KAdapterConfig(**{**sizes, "reads": tuple(sizes["reads"])}))
    adapter.load_state_dict(load_file(folder / "adapter_model.safetensors"))
    return with_k_adapter(model, adapter)


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
