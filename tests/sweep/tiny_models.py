"""A tiny model of every causal architecture that the installed Transformers knows, made from its configuration class.

    make("mixtral")                                     # width 32, 2 layers or a few more, 328 tokens, eval mode
    names()                                             # what `AutoModelForCausalLM` knows, and "opt:projected"

A configuration class gets those of `SIZES` that it has fields for, no dropout, and what `OWN` says for its type.
"""

import dataclasses
import inspect
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import tiny

FIELDS = {
    tiny.VOCAB + 8: "vocab_size",
    32: "hidden_size n_embd d_model embed_dim embedding_dim emb_dim word_embed_proj_dim dim attention_hidden_size "
    "hidden_size_per_layer_input lru_width kv_channels",
    2: "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_blocks num_key_value_heads "
    "num_kv_heads num_experts_per_tok num_experts_per_token moe_top_k moe_k top_k moe_topk router_top_k "
    "linear_num_key_heads num_encoder_layers num_decoder_layers n_langs mamba_n_groups",
    4: "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads num_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts linear_num_value_heads index_n_heads index_topk "
    "num_memory_blocks",
    8: "head_dim d_kv qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim "
    "index_head_dim mamba_n_heads mamba_d_head mamba_d_state state_size mamba_num_heads mamba_head_dim "
    "ssm_state_size chunk_size mamba_chunk_size global_head_dim query_pre_attn_scalar kv_lora_rank rotary_dim "
    "swa_head_dim dim_head",
    16: "moe_intermediate_size shared_expert_intermediate_size q_lora_rank expert_hidden_size "
    "moe_shared_expert_intermediate_size expert_ffn_hidden_size ffn_hidden_dim moe_ffn_hidden_size",
    64: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner ffn_hidden_size d_ff mamba_d_ssm "
    "shared_intermediate_size dff dim_ff attention_value_hidden_size",
    128: "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length original_max_position_embeddings",
    tiny.WINDOW: "sliding_window attention_window local_attention window_size attention_window_size",
    1: "n_group topk_group n_groups n_shared_experts num_shared_experts first_k_dense_replace moe_num_shared_experts "
    "num_dense_layers mamba_expand",
    0.2: "initializer_range init_std",
    0: "pad_token_id",
}
SIZES: dict[str, Any] = {name: value for value, names in FIELDS.items() for name in names.split()}
SIZES |= {"eos_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 1, "is_decoder": True}
SIZES |= {"final_logit_softcapping": 5.0, "logits_soft_cap": 5.0, "output_logit_soft_cap": 5.0, "logit_scale": 0.5}
SIZES |= {"logits_scaling": 2.0, "lm_head_multiplier": 0.5}

MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2}
KINDS = ["sliding_attention", "full_attention"]
LATENT = "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 youtu"
OWN: dict[str, dict[str, Any]] = {
    **{name: {"num_key_value_heads": 4} for name in LATENT.split()},
    "bailing_hybrid": {"layer_group_size": 2, "num_key_value_heads": 4},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": KINDS,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in KINDS},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v4": {"num_key_value_heads": 1, "o_groups": 2, "o_lora_rank": 8, "partial_rotary_factor": 0.5},
    "dots3_note_text": {"num_key_value_heads": 4, "shared_experts_intermediate_size": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": KINDS * 2, "laurel_rank": 8,
        "vocab_size_per_layer_input": tiny.VOCAB + 8, "hidden_size_per_layer_input": 8,
    },
    "gemma4_text": {"layer_types": KINDS, "global_head_dim": 8, "vocab_size_per_layer_input": tiny.VOCAB + 8,
                    "hidden_size_per_layer_input": 8},
    "gemma4_text:shared": {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": KINDS * 2},
    "gemma4_text:experts": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2},
    "gemma4_unified_text": {"layer_types": KINDS},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**MAMBA, "layer_types": ["mamba", "attention"]},
    "granitemoehybrid:dense": {"num_local_experts": 0, "num_experts_per_tok": 0},
    "kimi_linear": {"num_key_value_heads": 4, "linear_head_dim": 8, "linear_num_heads": 4,
                    "layer_types": ["linear_attention", "full_attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"zero_expert_num": 2, "num_key_value_heads": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "moe"], "num_hidden_layers": 3},
    "opt:projected": {"word_embed_proj_dim": 16},
    "phi3:longrope": {
        "max_position_embeddings": 128, "original_max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
                            "long_factor": [2.0] * 4, "original_max_position_embeddings": 64},
    },
    "qwen4_exp_text": {"hc_lowrank": 8, "ngram_vocab_size_base": 64},
    "phimoe": {"router_jitter_noise": 0.0, "input_jitter_noise": 0.0},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roc_bert": {"shape_vocab_size": 8, "pronunciation_vocab_size": 8, "shape_embed_dim": 8,
                 "pronunciation_embed_dim": 8},
    "xlnet": {"d_inner": 64},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_key_value_heads": 4,
              "use_mamba_kernels": False, "mamba_dt_rank": 4, "attention_hidden_size": 64, "attention_head_dim": 16,
              "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2, "num_key_value_heads": 4,
               "n_mamba_heads": 8, "adapter_rank": 4},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}  # fmt: skip
"""What a type needs beside the common sizes; "TYPE:VARIANT" is another configuration of it."""

WRAPPERS = (
    "dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_unified got_ocr2 llama4 mllama moss_transcribe_diarize "
    "phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp"
)
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(WRAPPERS.split(), "wraps a language model, whose own type is in the table or has none"),
    **dict.fromkeys(("musicgen", "musicgen_melody"), "writes codes of sound"),
    "git": "describes images",
    "blt": "reads bytes by patches of a second model",
    "gemma4_assistant": "drafts for another model and reads that model's states",
    "gemma4_unified_assistant": "drafts for another model and reads that model's states",
    "reformer": "computes gradients in training mode alone",
    "whisper": "the decoder of a speech recogniser",
    "trocr": "the decoder of a text recogniser",
}  # fmt: skip
"""Types of which no tiny model is built, and why."""


def names() -> list[str]:
    """Every model type of `AutoModelForCausalLM`, and variants "TYPE:VARIANT"."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *(name for name in OWN if ":" in name)})


def configuration(name: str) -> PretrainedConfig:
    """The tiny configuration of a model type."""
    made = CONFIG_MAPPING[name.partition(":")[0]]
    known = {field.name for field in dataclasses.fields(made)} if dataclasses.is_dataclass(made) else set()
    known |= set(inspect.signature(made.__init__).parameters) - {"self", "kwargs", "args"}
    aliases = getattr(made, "attribute_map", {})
    chosen = {
        field: value
        for field, value in SIZES.items()
        if field in known and aliases.get(field) not in known & SIZES.keys()
    }
    chosen |= {field: 0.0 for field in known if "drop" in field and isinstance(getattr(made, field, None), float)}
    return made(**(chosen | OWN.get(name.partition(":")[0], {}) | OWN.get(name, {})))


def make(name: str, seed: int = 0, **loading: Any) -> PreTrainedModel:
    """A random model, the same for the same arguments, in eval mode; biases and norms are random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(configuration(name), **loading)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()
