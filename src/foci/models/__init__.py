"""Everything foci knows of a Hugging Face causal language model: loading, adapters, fingerprint.

    loaded = load("smollm2-135m")            # or a hub id, a folder, a .gguf file, a PEFT adapter
    block_of("model.layers.3.mlp.up_proj.weight")       # "layers.3"
    head = head_of(loaded.model)             # logits = softcap(scale * module(hidden))
    model = add_adapter(loaded.model, Adapter(r=16))

`architecture` says how a loaded model is read (blocks, LM head, checks), `adapters` what trains in place of its
weights, `locate` and `gguf` where its files come from, `losses` what a token costs, `forward` how rows are run.
"""

from foci.config.adapter import ADAPTERS, Adapter
from foci.models.adapters import add_adapter, unadapted_blocks, without_adapters
from foci.models.architecture import (
    UNLIMITED,
    Head,
    LanguageModel,
    base_of,
    block_of,
    blocks,
    check_causal,
    check_head,
    evaluating,
    fingerprint,
    head_of,
    layer_count,
    max_length,
)
from foci.models.loading import Loaded, compute_dtype, load

__all__ = [
    "ADAPTERS",
    "UNLIMITED",
    "Adapter",
    "Head",
    "LanguageModel",
    "Loaded",
    "add_adapter",
    "base_of",
    "block_of",
    "blocks",
    "check_causal",
    "check_head",
    "compute_dtype",
    "evaluating",
    "fingerprint",
    "head_of",
    "layer_count",
    "load",
    "max_length",
    "unadapted_blocks",
    "without_adapters",
]
