"""Puts a saved adapter of PEFT upon its base model, and merges it, if it fits and the merged model answers alike."""

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.models.adapters import peft_quiet
from foci.models.architecture import LanguageModel, base_of, sample_ids
from foci.models.forward import answering
from foci.models.gguf import quiet
from foci.models.on_disk import is_on_disk
from foci.models.targets import expert_stacks
from foci.models.whole import check_numbers, read_json

TOLERANCE = 1e-3
"""Most that logits of one model, computed in two ways in float32, may differ, relative to the largest."""


def with_adapter(model: PreTrainedModel, folder: Path, name: str, base: tuple[str, str] | None = None) -> PeftModel:
    """Returns the model with the adapter of a folder, not merged. `name` is what errors call the adapter.

    `base` is the name of the model and where that is written; None: as in the adapter's own settings. Raises
    ValueError where the adapter does not fit: weights that have no place in the model, places that have no weights,
    other sizes, layers that are not there, another task than language modelling.
    """
    settings = _settings(folder, name)
    told = f"base_model_name_or_path of {folder / 'adapter_config.json'}"
    base_name, where = base or (str(settings.get("base_model_name_or_path")), told)
    try:
        with quiet(), peft_quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about shared weights (`merged` compares) and missing ones (refused below)
            adapted = PeftModel.from_pretrained(model, str(folder))
            key_mapping = getattr(model, "_checkpoint_conversion_mapping", {})
            found = adapted.load_adapter(str(folder), "default", key_mapping=key_mapping)  # says what had no place
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("size mismatch")), lines[0] if lines else repr(error))
        raise ValueError(
            f"the adapter {name!r} does not fit its base model {base_name!r}: {reason[:300]}; give the base model that "
            f"it was trained on in {where}"
        ) from None
    if found.unexpected_keys or found.missing_keys:
        parts = {
            "have no place in the model": found.unexpected_keys,
            "of the model are not in its file": found.missing_keys,
        }
        words = " and ".join(f"{len(keys)} weights {what} ({keys[0]}, ...)" for what, keys in parts.items() if keys)
        raise ValueError(
            f"the adapter {name!r} does not fit its base model {base_name!r}: {words}; give the base model that it was "
            f"trained on in {where}, or get the files again"
        )
    check_numbers(
        ((key, p) for key, p in adapted.named_parameters() if "base_layer" not in key), f"the adapter {name!r}"
    )
    return adapted


def going_on(model: PreTrainedModel, folder: Path, name: str) -> PeftModel:
    """Returns the model with the adapter of a folder, which trains on. Errors as in `with_adapter`."""
    adapted = with_adapter(model, folder, name)
    for settings in adapted.peft_config.values():
        settings.inference_mode = False
        settings.base_model_name_or_path = model.config.name_or_path  # PEFT looks there whenever it saves
    adapted.set_adapter("default")
    return adapted


def _settings(folder: Path, name: str) -> dict[str, Any]:
    """Returns the settings of an adapter of a known type for language modelling; raises ValueError for another."""
    settings = read_json(folder / "adapter_config.json")
    if settings.get("task_type") not in (None, "CAUSAL_LM"):
        raise ValueError(
            f"the adapter {name!r} is for {settings['task_type']}, expected CAUSAL_LM; name an adapter of a causal "
            "language model"
        )
    if settings.get("peft_type") not in list(PeftType):
        raise ValueError(
            f"the adapter {name!r} is of the type {settings.get('peft_type')!r}, which this PEFT ({peft.__version__}) "
            f"does not know; look at peft_type in {folder / 'adapter_config.json'}, or update PEFT"
        )
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[PeftType(settings["peft_type"])]
    if not hasattr(tuner, "merge_and_unload"):  # prompts: to load one, PEFT would fetch a tokenizer
        raise ValueError(
            f"the adapter {name!r} is of the type {settings['peft_type']}, which cannot be merged into the weights; "
            "name an adapter such as LoRA"
        )
    if settings.get("megatron_config") is not None:
        raise ValueError(
            f"the adapter {name!r} names a Python module to import (megatron_config in {folder / 'adapter_config.json'}"
            "); foci imports nothing because a file names it: take megatron_config out, or name another adapter"
        )
    return settings


def merged(adapted: PeftModel, name: str) -> PreTrainedModel:
    """Returns the model with its adapter merged into the weights. Changes and uses up `adapted`.

    An embedding and a head that share their weight are parted where the adapter changes one of them. Raises ValueError
    if the merged model answers 8 tokens in another way than before, as where a weight that is used several times got
    several changes.
    """
    before, routes = answers(adapted), bool(expert_stacks(base_of(adapted)))
    _part_head(adapted)
    with quiet(), peft_quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_on_disk(adapted):
            _merge_in_files(adapted)
        model: PreTrainedModel = adapted.merge_and_unload()
    off = distance(answers(model), before, most=not routes)
    if not off <= TOLERANCE:
        raise ValueError(
            f"the adapter {name!r} cannot be merged into {type(model).__name__}: its logits change by {off:.1g} of "
            "the largest, as where blocks share weights that the adapter changes in several ways; leave out such "
            "layers, or use the adapter unmerged with PEFT"
        )
    return model.requires_grad_(True)  # PEFT froze the weights beside the adapter


def _merge_in_files(adapted: PeftModel) -> None:
    """Merges layer by layer into the files where the weights lie: some adapters (DoRA) make new weights in memory."""
    for layer in adapted.modules():
        if isinstance(layer, BaseTunerLayer):
            parameters = list(layer.get_base_layer().parameters(recurse=False))
            before = [parameter.data for parameter in parameters]
            layer.merge()  # type: ignore[attr-defined, operator]
            for parameter, place in zip(parameters, before, strict=True):
                if parameter.data_ptr() != place.data_ptr():
                    parameter.data = place.copy_(parameter.data)


def _part_head(adapted: PeftModel) -> None:
    """Gives the head a weight of its own where it shares that of the embedding and the adapter changes either."""
    base = base_of(adapted)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    inner = [getattr(module, "base_layer", module) for module in (embedding, head)]
    if inner == [embedding, head] or getattr(inner[0], "weight", None) is not getattr(inner[1], "weight", 0):
        return
    inner[1].weight = nn.Parameter(inner[1].weight.detach().clone())
    for config in {id(c): c for c in (base.config, base.config.get_text_config())}.values():
        config.tie_word_embeddings = False


def answers(model: LanguageModel) -> Tensor:
    """Returns the logits of 8 tokens, in float32 on the CPU: (8, vocab)."""
    base = base_of(model)
    ids = sample_ids(base)
    with answering(model, torch.float32):
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    return logits.float().cpu()


def distance(logits: Tensor, others: Tensor, *, most: bool = True) -> float:
    """Returns the largest difference of logits, relative to the largest number; infinite where shapes differ.

    `most=False` takes the median over tokens: in another order of sums, a router may pick another expert for a token.
    """
    if logits.shape != others.shape:
        return float("inf")
    off = (logits - others).abs().amax(-1) / others.abs().max().clamp(min=1e-30)
    return float(off.max() if most else off.median())
