"""Models with random weights, by type and size."""

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    set_seed,
)

from foci.models import blocks, head_of
from foci.pretrain.config import TYPES, ScratchConfig


def configuration(size: ScratchConfig, tokenizer: PreTrainedTokenizerFast, length: int) -> PretrainedConfig:
    """Returns the Transformers configuration of a model that reads rows of at most `length` tokens."""
    mlp = size.mlp or 4 * size.width
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if size.type == "gpt2":
        drops = {"resid_pdrop": size.dropout, "embd_pdrop": size.dropout, "attn_pdrop": size.dropout}
        shape = {"n_layer": size.layers, "n_embd": size.width, "n_head": size.heads, "n_inner": mlp}
        return GPT2Config(**shared, **shape, **drops, n_positions=length)
    shared |= {
        "num_hidden_layers": size.layers,
        "hidden_size": size.width,
        "num_attention_heads": size.heads,
        "intermediate_size": mlp,
    }
    if size.type == "llama":
        return LlamaConfig(**shared, max_position_embeddings=length, attention_dropout=size.dropout)
    if size.type == "modernbert":
        drops = {"attention_dropout": size.dropout, "mlp_dropout": size.dropout, "embedding_dropout": size.dropout}
        ends = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
        return ModernBertConfig(**shared, **drops, **ends, max_position_embeddings=length)
    drops = {"hidden_dropout_prob": size.dropout, "attention_probs_dropout_prob": size.dropout}
    if size.type == "bert":
        return BertConfig(**shared, **drops, max_position_embeddings=length)
    positions = length + int(tokenizer.pad_token_id or 0) + 1  # RoBERTa counts positions from the padding's id + 1
    return RobertaConfig(**shared, **drops, max_position_embeddings=positions)


def scratch(size: ScratchConfig, tokenizer: PreTrainedTokenizerFast, length: int, seed: int) -> PreTrainedModel:
    """Makes a model with random weights, the same for the same arguments, in evaluation mode."""
    set_seed(seed)
    auto = AutoModelForMaskedLM if TYPES[size.type] == "masked" else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(configuration(size, tokenizer, length), attn_implementation="sdpa").eval()
    blocks(model)  # refuses a parameter that stands in no block
    head_of(model)  # refuses logits that it cannot compute
    return model
