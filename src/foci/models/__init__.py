"""Causal language models of Hugging Face: loading, adapters, blocks, losses, fingerprints.

    loaded = load("smollm2-135m")            # or a hub id, a folder, a .gguf file, a PEFT adapter
    block_of("model.layers.3.mlp.up_proj.weight")       # "layers.3"
    head = head_of(loaded.model)             # logits = head.logits(hidden)
    model = add_adapter(loaded.model, Adapter(r=16))

`loading` loads a model, `locate` and `gguf` find its files, `architecture` names its blocks, `head` finds its LM head
and the way to its logits, `targets` what an adapter can sit in, `adapters` wraps it by an adapter, `losses` computes
the NLL of tokens, `forward` runs it on rows, `fsdp` handles models that FSDP2 shards,
`quantised` those in 4 or 8 bits.
"""

from foci.config.adapter import ADAPTERS, Adapter
from foci.models.adapters import add_adapter, unadapted_blocks, without_adapters
from foci.models.architecture import (
    UNLIMITED,
    LanguageModel,
    base_of,
    block_of,
    blocks,
    check_causal,
    evaluating,
    fingerprint,
    layer_count,
    max_length,
)
from foci.models.head import Head, head_of
from foci.models.loading import Loaded, compute_dtype, load, load_configured
from foci.models.targets import Coverage, coverage

__all__ = [
    "ADAPTERS",
    "UNLIMITED",
    "Adapter",
    "Coverage",
    "Head",
    "LanguageModel",
    "Loaded",
    "add_adapter",
    "base_of",
    "block_of",
    "blocks",
    "check_causal",
    "compute_dtype",
    "coverage",
    "evaluating",
    "fingerprint",
    "head_of",
    "layer_count",
    "load",
    "load_configured",
    "max_length",
    "unadapted_blocks",
    "without_adapters",
]
