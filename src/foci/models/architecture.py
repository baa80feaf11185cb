"""Blocks of a loaded language model, found without a list of architectures.

Blocks are recognised by the words in the names of parameters. `check_causal` runs the model on 8 tokens and refuses one
that looks ahead; `foci.models.head` finds the LM head.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.models.quantised import scales

LanguageModel: TypeAlias = PreTrainedModel | PeftModel
"""A Transformers model, bare or with an adapter."""
UNLIMITED = sys.maxsize  # max_length of a model whose configuration states none

# Words that model code uses for its parts, and for the containers around them.
_CONTAINERS = (
    "base_model model module transformer gpt_neox bert roberta encoder backbone decoder language_model _orig_mod "
    "rwkv biogpt gpt_neox_japanese electra ernie rembert roberta_prelayernorm roc_bert roformer data2vec_text"
)
_INSIDE = rf"^(?:(?:{'|'.join(_CONTAINERS.split())})\.)*"
_LAYER = re.compile(_INSIDE + r"(?:layers|layer|h|blocks)\.(\d+)\.")
_PART = re.compile(_INSIDE + r"(\w+)\.")
_ALONE = re.compile(_INSIDE + r"(\w+)$")  # a parameter of the trunk itself
_PARTS = {
    "embeddings": "embed_tokens embed_in embed_positions wte wpe word_embeddings word_embeddings_layernorm "
    "embeddings tok_embeddings embed_tokens_per_layer per_layer_model_projection per_layer_projection_norm "
    "layernorm_embedding embeddings_project embedding_hidden_mapping_in w word_embedding mask_emb tokens_embed "
    "positions_embed project_in altup_projections input_hidden_states_scale input_hidden_states_bias",
    "norm": "norm layer_norm embedding_norm final_layer_norm final_layernorm ln_f norm_f final_norm layernorm "
    "LayerNorm ln ln_out out_norm project_out altup_unembed_projections hc_head hyper_connection_mixer final_input",
    "head": "lm_head embed_out output cls head decoder pooler generator_predictions generator_lm_head lm_loss",
}
_LAYER_PARTS = {
    "attention": "self_attn attn attention self_attention cross_attn linear_attn",
    "mlp": "mlp feed_forward ffn block_sparse_moe intermediate output",
}
_NORM = re.compile(r"norm|^ln_")
_LAYER_PART = {word: part for part, words in _LAYER_PARTS.items() for word in words.split()}
_BLOCK = {word: block for block, words in _PARTS.items() for word in words.split()}


def block_of(parameter_name: str) -> str:
    """Returns the block of a parameter: "embeddings", "layers.<n>" (from 0), "norm" or "head".

    "norm" is what stands between the last layer and the head: a norm, in some models a projection too. Takes names of
    the model or of its PEFT wrapper. An adapter belongs to the layer that it adapts. A head that is tied to the
    embeddings has no name of its own in `named_parameters()`: it belongs to "embeddings". Raises ValueError for a name
    of no known block.

    >>> block_of("base_model.model.transformer.h.11.attn.c_attn.lora_A.default.weight")
    'layers.11'
    """
    layer = _LAYER.match(parameter_name)
    if layer:
        return f"layers.{int(layer[1])}"
    parts = (part for part in (_PART.match(parameter_name), _ALONE.match(parameter_name)) if part)
    block = next((_BLOCK[part[1]] for part in parts if part[1] in _BLOCK), None)
    if block is None:
        raise ValueError(
            f"no block is known for the parameter {parameter_name!r}: expected a layer (layers.N, layer.N, h.N, "
            "blocks.N), or an embedding, a last norm or a head with a usual name; take another architecture"
        )
    return block


def is_layer(module_name: str) -> bool:
    """Returns whether a module is a whole transformer layer.

    >>> is_layer("model.layers.3"), is_layer("model.layers.3.mlp"), is_layer("model.layers.3.mlp.experts.0")
    (True, False, False)
    """
    return bool(_LAYER.fullmatch(f"{module_name}."))


def part_of(parameter_name: str) -> str:
    """Returns the block of a parameter, with layers split into `.attention`, `.mlp` and `.norm`: "layers.3.mlp".

    Norms inside the attention (of queries and keys) count as attention. Raises ValueError for a part of another name.

    >>> part_of("model.layers.3.self_attn.q_norm.weight"), part_of("transformer.h.0.ln_1.bias")
    ('layers.3.attention', 'layers.0.norm')
    """
    block, layer = block_of(parameter_name), _LAYER.match(parameter_name)
    if layer is None:
        return block
    word = parameter_name[layer.end() :].partition(".")[0]
    part = "norm" if _NORM.search(word) else _LAYER_PART.get(word)
    if part is None:
        raise ValueError(
            f"no part of {block} is known for the parameter {parameter_name!r}: expected a norm or one of "
            f"{', '.join(_LAYER_PART)}; take whole layers as blocks"
        )
    return f"{block}.{part}"


def blocks(model: nn.Module) -> list[str]:
    """Returns the model's blocks from bottom to top: embeddings, layers.0 ..., norm, and head unless it is tied.

    Raises ValueError, with the model's name, if a parameter is in no known block.
    """
    try:
        have = {block_of(name) for name, _ in model.named_parameters()}
    except ValueError as error:
        base = base_of(model)  # type: ignore[arg-type]
        raise ValueError(
            f"{type(base).__name__} (model type {base.config.model_type!r}) is not supported: {error}"
        ) from None
    layers = sorted((b for b in have if b.startswith("layers.")), key=lambda b: int(b.removeprefix("layers.")))
    return [b for b in ("embeddings", *layers, "norm", "head") if b in have]


def layer_count(model: nn.Module) -> int:
    """Returns the number of transformer layers."""
    return sum(block.startswith("layers.") for block in blocks(model))


def base_of(model: LanguageModel) -> PreTrainedModel:
    """Returns the Transformers model inside the wrappers of DDP and PEFT. Adapters stay in its layers."""
    if not isinstance(model, LanguageModel):
        return base_of(model.module)
    return model if isinstance(model, PreTrainedModel) else model.get_base_model()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts every module into eval mode while open; afterwards each module has its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Puts the model into eval mode while open, but layers that checkpoint activations in training go on doing so."""
    checkpointing = [m for m in model.modules() if m.training and getattr(m, "gradient_checkpointing", False)]
    with evaluating(model):
        for module in checkpointing:
            module.training = True
        yield


def recompute_activations(model: LanguageModel) -> None:
    """Makes training passes compute each layer's activations again in the backward pass (activation checkpointing).

    Raises ValueError for an architecture that cannot.
    """
    base: Any = base_of(model)
    name = "activation_checkpointing_enable"  # of Transformers 5.23; before it had another name
    enable = getattr(base, name, None) or base.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def sample_ids(model: PreTrainedModel) -> Int[Tensor, "one seq"]:
    """Returns one row of 8 tokens, evenly spaced over the vocabulary, to run an unknown architecture on.

    The padding token is not among them: some models take it for padding wherever it stands.
    """
    table = model.get_input_embeddings().weight
    ids = torch.linspace(0, table.shape[0] - 1, 8, device=table.device).long()[None]
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    return torch.where(ids == (-1 if pad is None else pad), (ids + 1) % table.shape[0], ids)


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.no_grad(), evaluating(model):
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits.float()


def precision_of(dtype: torch.dtype) -> float:
    """Returns the tolerance between two ways of computing the same logits, relative to the largest one."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 2e-2


def equal_logits(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    """Returns whether logits agree to a tolerance, relative to the largest logit."""
    return float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def check_causal(model: LanguageModel) -> None:
    """Raises ValueError if the model's logits at a token depend on a later token."""
    base = base_of(model)
    ids = sample_ids(base)
    other = ids.clone()
    other[0, -1] = ids[0, 1]
    before, after = _logits(base, ids)[:, :-1], _logits(base, other)[:, :-1]
    if not equal_logits(before, after, precision_of(base.get_input_embeddings().weight.dtype)):
        raise ValueError(
            f"{type(base).__name__} (model type {base.config.model_type!r}) is not causal: logits change "
            f"with tokens that come later; name a decoder-only language model"
        )


def max_length(model: LanguageModel) -> int:
    """Returns the most tokens that the model takes, prompt and answer together; `UNLIMITED` if its config says none.

    RoBERTa and its family count positions from one past their padding's, so that many fewer fit.
    """
    config = base_of(model).config.get_text_config()
    stated = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    places = [
        module.num_embeddings - module.padding_idx - 1
        for name, module in base_of(model).named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None
    ]
    return min([next((int(value) for value in stated if value), UNLIMITED), *places])


_NOT_THE_MODEL = re.compile(r"^(_.*|transformers_version|architectures|(torch_)?dtype|use_cache)$")


def fingerprint(model: LanguageModel) -> str:
    """Returns 16 hex digits of the SHA-256 of the configuration and of every weight (adapters too).

    The fingerprint stays the same when a model is saved and loaded. File names, versions and the attention
    implementation do not count.
    """
    fields = {k: v for k, v in base_of(model).config.to_dict().items() if not _NOT_THE_MODEL.match(k)}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode())
    for name, value in sorted(model.named_parameters()):  # tied weights once
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        for numbers in (value.detach(), *scales(value)):
            digest.update(numbers.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
