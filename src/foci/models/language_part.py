"""The language part of a multimodal model, as a causal language model of its own.

A model that reads images or sound keeps a language model inside. foci trains text, so it takes that part: the class for
its text alone, its part of the configuration, and its weights under the names that this class has. What sees and hears
is not loaded.
"""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

from foci.models.whole import check_safetensors, explained, read_json

OTHER_SENSES = ("text_config", "vision_config", "audio_config", "thinker_config", "llm_config")
"""Keys of a configuration that say that a model reads more than text."""
ALIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_vl_text": ("qwen2", {}),
    "qwen2_5_vl_text": ("qwen2", {}),
    "qwen3_vl_text": ("qwen3", {}),
    "qwen3_vl_moe_text": ("qwen3_moe", {"norm_topk_prob": True}),
}
"""Text parts without a class of their own, and the model that computes the same on text alone, with these settings."""
SCALES = ("logit_scale", "logits_scaling", "final_logit_softcapping")
"""Settings of a language model that change its logits after the head."""
NAMES = {
    r"^model\.language_model\.": "model.",
    r"^model\.text_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.lm_head\.": "lm_head.",
}
"""Beginnings of the names of weights in the files, and those in a model of text alone (`key_mapping`)."""


def language_config(folder: Path, name: str) -> PreTrainedConfig | None:
    """Returns the configuration of a multimodal model's language part; None where a model reads text alone.

    Reads no weights. Raises ValueError, with the cure, where the language part has no class for text alone.
    """
    raw = read_json(folder / "config.json")
    if raw.get("is_encoder_decoder") or not any(isinstance(raw.get(key), dict) for key in OTHER_SENSES):
        return None
    classes = ", ".join(raw.get("architectures") or []) or f"model type {raw.get('model_type')!r}"
    with explained(name, "the configuration", folder):
        whole = AutoConfig.from_pretrained(folder, local_files_only=True)
    text: PreTrainedConfig = whole.get_text_config(decoder=True)
    if text is whole:
        return None
    kind, settings = ALIKE.get(text.model_type, (text.model_type, {}))
    if kind not in CAUSAL:
        raise ValueError(
            f"model {name!r} reads images or sound ({classes}), and its language part, of the type "
            f"{text.model_type!r}, has no class for text alone in Transformers; name a model of text alone of its "
            "family"
        )
    check_direction(getattr(text, "use_bidirectional_attention", None), name, classes)
    if kind != text.model_type:
        fields = {key: value for key, value in text.to_dict().items() if key not in ("model_type", "architectures")}
        text = AutoConfig.for_model(kind, **{**fields, **settings})
    names = [key for file in sorted(folder.glob("*.safetensors")) for key in _keys(file)]
    check_names(names, name, classes)
    tied = getattr(whole, "tie_word_embeddings", text.tie_word_embeddings)
    text.tie_word_embeddings = bool(tied) or not any(key.endswith("lm_head.weight") for key in names)
    text.architectures = [str(CAUSAL[kind])]
    return text


def check_direction(told: object, name: str, classes: str) -> None:
    """Raises ValueError where `use_bidirectional_attention` of a configuration says that tokens see later ones."""
    if told in (True, "all"):
        raise ValueError(
            f"model {name!r} ({classes}) is not causal: its tokens attend to those after them "
            f"(use_bidirectional_attention is {told!r} in its configuration); name a model that reads from left to "
            "right"
        )


def check_names(names: Sequence[str], name: str, classes: str) -> None:
    """Raises ValueError where no weight of the files has a name that a language model's layers have (`NAMES`)."""
    if names and not any(re.match(rf"(?:{'|'.join(NAMES)}|model\.)(?:\w+\.)?(?:layers|h)\.\d", key) for key in names):
        inner = next((key for key in names if re.search(r"\.\d+\.", key)), names[0])
        raise ValueError(
            f"model {name!r} reads images or sound ({classes}), and its files name the weights of its language part in "
            f"a way that is unknown here ({inner}); name a model of text alone of its family"
        )


def told_of_scale(text: PreTrainedConfig, folder: Path) -> str | None:
    """Returns in words that Transformers' class of the whole model leaves out how the language model scales its logits.

    None where it does not. Aya Vision and Granite Speech: their language models were trained with the scale.
    """
    whole = getattr(transformers, str((read_json(folder / "config.json").get("architectures") or [""])[0]), None)
    if not (inspect.isclass(whole) and issubclass(whole, transformers.PreTrainedModel)):
        return None
    source = inspect.getsource(whole)
    for field in SCALES:
        value = getattr(text, field, None)
        if value not in (None, 1) and field not in source:
            return (
                f"the language part's logits follow its configuration ({field} {value:g}), as in "
                f"{(text.architectures or ['its class'])[0]}; {whole.__name__} of this Transformers leaves that out, "
                "so its logits and losses differ"
            )
    return None


def _keys(file: Path) -> list[str]:
    """Returns the names of the weights in a safetensors file. Raises ValueError for one that is not whole."""
    check_safetensors(file)
    with safe_open(file, framework="np") as opened:
        return list(opened.keys())
