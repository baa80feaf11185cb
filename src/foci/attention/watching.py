"""Replaces the attention function of a model's layers for as long as a `with` is open.

This works for every model that calls Transformers' attention interface. `check_watched` runs a few tokens to prove that
the model's attention is the one that `Logits` describes, and raises an error with the model's name where it is not.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foci.attention.logits import Logits, QuerySlice, grouped
from foci.attention.masks import MaskRule
from foci.models import fsdp
from foci.models.architecture import base_of, evaluating, sample_ids
from foci.models.losses import captured_hidden

NAME = "foci_watched"
"""The name under which a watched model's attention is registered, followed by a number."""

Attention = Callable[..., tuple[Tensor, Tensor | None]]
See = Callable[[int, QuerySlice, Tensor], None]
"""Called with a layer, a slice of its queries and their probabilities (batch, head, query, key of the slice)."""

_NUMBERS = itertools.count()
_NOT_READ = frozenset({"position_ids", "cache_position", "cu_seq_lens_q", "cu_seq_lens_k"})
"""Tensors that models pass to their attention but that change no logit: the mask holds the same information."""
_CHECKED: WeakKeyDictionary[PreTrainedModel, dict[int, bool]] = WeakKeyDictionary()


@contextmanager
def watched(model: PreTrainedModel, attend: Attention, mask: Callable[..., Any]) -> Iterator[None]:
    """While open, the model's layers call `attend` in place of their attention, and `mask` makes their masks."""
    before, name = model.config._attn_implementation, f"{NAME}_{next(_NUMBERS)}"
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, mask)
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        del AttentionInterface._global_mapping[name], AttentionMaskInterface._global_mapping[name]


def attention_of(model: PreTrainedModel) -> tuple[Attention, Callable[..., Any]]:
    """Returns the model's attention and mask functions. Raises ValueError where they cannot be replaced."""
    name = model.config._attn_implementation
    eager = getattr(sys.modules[type(model).__module__], "eager_attention_forward", None)
    if name == "sdpa" or name.startswith(NAME):
        return ALL_ATTENTION_FUNCTIONS[name], ALL_MASK_ATTENTION_FUNCTIONS[name]
    if name == "eager" and eager is None:
        raise ValueError(
            f"{type(model).__name__} (model type {model.config.model_type!r}) cannot be watched: its code computes "
            "attention itself, got no call of Transformers' attention interface; use a model that calls it"
        )
    if name != "eager" or eager is None:
        raise ValueError(
            f"{type(model).__name__} runs attention {name!r}, which foci cannot watch; load the model with "
            "attn_implementation='sdpa' (or 'eager')"
        )
    return eager, ALL_MASK_ATTENTION_FUNCTIONS[name]


def logits_of(module: nn.Module, query: Tensor, key: Tensor, mask: Any, options: Mapping[str, Any]) -> Logits:
    """Returns the logits of one attention call. Raises ValueError where they depend on more than foci knows."""
    unread = sorted(n for n, v in options.items() if isinstance(v, Tensor) and n not in _NOT_READ | {"s_aux"})
    if unread or query.shape[2] != key.shape[2]:
        raise ValueError(
            f"{type(module).__name__} cannot be watched: its attention reads {', '.join(unread) or 'other keys'} "
            f"({query.shape[2]} queries, {key.shape[2]} keys), foci knows self-attention by queries, keys, mask, "
            "softcap and sinks; use a model with plain attention, without a cache"
        )
    causal = options.get("is_causal")
    scaling = options.get("scaling")
    return Logits(
        query,
        key,
        mask,
        query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        options.get("softcap"),
        options.get("s_aux"),
        bool(getattr(module, "is_causal", True) if causal is None else causal),
    )


def layer_of(module: nn.Module) -> int:
    """Returns the number of an attention module's layer, from 0."""
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int):
        raise ValueError(  # noqa: TRY004
            f"{type(module).__name__} cannot be watched: it has no layer_idx that says which layer it is, got {layer!r}"
        )
    return layer


def in_slices(see: See) -> Attention:
    """Returns an attention function that calls `see` for each slice of queries; its masks must be `MaskRule`s."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        logits, layer = logits_of(module, query, key, attention_mask, options), layer_of(module)
        output = value.new_zeros(*query.shape[:3], value.shape[-1]).transpose(1, 2).contiguous()
        for part in logits.slices():
            probabilities = logits.probabilities(part)
            see(layer, part, probabilities)
            seen = grouped(probabilities.to(value.dtype), value[:, :, part.low : part.high])
            output[:, part.start : part.stop] = seen.transpose(1, 2)
        return output, None

    return attention


def run_in_slices(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, see: See, *, exact: bool = False
) -> Tensor:
    """Runs the model without dropout, gradient and LM head, calls `see` in every layer, returns the last hidden states.

    `exact` turns a caller's autocast off, which would round two ways of computing the same number differently.
    """
    with watched(model, in_slices(see), MaskRule.of):
        return _hidden(model, input_ids, attention_mask, exact)


def _hidden(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, exact: bool = False) -> Tensor:
    rounding = torch.autocast(input_ids.device.type, enabled=False) if exact else nullcontext()
    with torch.no_grad(), evaluating(model), rounding:
        read = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        apart = model.base_model is not model and fsdp.root(model) is None  # FSDP2 gathers weights in the whole model
        if apart or model.get_output_embeddings() is None:
            hidden: Tensor = model.base_model(**read)[0]
            return hidden
        with captured_hidden(model) as captured:
            model(**read)
    return captured[0]


def check_watched(model: nn.Module) -> dict[int, bool]:
    """Returns the layers that have attention, each with True if it is causal (a query sees no later key).

    Raises ValueError, with the model's name, where its attention cannot be watched: the hidden states of 2 rows (one
    padded) must equal the model's own when attention is computed from `Logits` (norm of the difference at most 1e-4 of
    the norm of theirs, 5e-2 in half precision). A model is checked once.
    """
    inner = base_of(model)  # type: ignore[arg-type]
    if isinstance(model, PeftModel) and any(c.is_prompt_learning for c in model.peft_config.values()):
        kinds = sorted(str(c.peft_type.value) for c in model.peft_config.values())
        raise ValueError(f"adapters that learn a prompt cannot be watched, got {', '.join(kinds)}; use LoRA")
    attention_of(inner)
    if inner in _CHECKED:
        return _CHECKED[inner]
    name, layers = f"{type(inner).__name__} (model type {inner.config.model_type!r})", dict[int, bool]()

    def see(layer: int, part: QuerySlice, probabilities: Tensor) -> None:
        if part.start == 0 and layer in layers:
            raise ValueError(f"{type(inner).__name__} cannot be watched: layer {layer} calls its attention twice")
        ahead = probabilities[0].sum(0).triu(1 + part.start - part.low).any()
        layers[layer] = layers.get(layer, True) and not bool(ahead)

    ids = sample_ids(inner).repeat(2, 1)
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    theirs = _hidden(inner, ids, mask, exact=True)
    try:
        ours = run_in_slices(inner, ids, mask, see, exact=True)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"{name} cannot be watched: its code works on the attention mask itself ({error}); use a model that hands "
            "its mask from Transformers' mask interface to its attention"
        ) from error
    theirs, ours = (hidden[mask.bool()].float() for hidden in (theirs, ours))
    tolerance = 5e-2 if inner.get_input_embeddings().weight.dtype.itemsize == 2 else 1e-4
    if not layers or not float((ours - theirs).norm()) <= tolerance * float(theirs.norm()):
        raise ValueError(
            f"{name} cannot be watched: {len(layers)} of its layers call Transformers' attention interface"
            + (", and computed from queries, keys, mask, softcap and sinks it gives other outputs" if layers else "")
            + "; use a model whose attention goes through that interface"
        )
    _CHECKED[inner] = layers
    return layers
