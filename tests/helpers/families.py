"""Tiny random models of families beyond `tiny.ARCHITECTURES`: mixtures of experts, hybrids, shared blocks, ReLU.

model = families.build("qwen3_moe", seed=3)               # 97 tokens, 2 layers, width 32, eval mode
families.save("gpt_oss", tmp_path / "m")                  # a folder with tokenizer, for the command line
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import tiny

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "intermediate_size": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {**HEADS, **ROUTED, "num_experts": 8},
    "qwen2_moe": {
        "num_attention_heads": 4, "num_key_value_heads": 2, **ROUTED, "num_experts": 4, "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 32,
    },
    "mixtral": {**HEADS, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2},
    "jetmoe": {
        "num_key_value_heads": 2, "kv_channels": 8, "intermediate_size": 64, "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gpt_oss": {**HEADS, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32, "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "deepseek_v3": {
        "num_attention_heads": 4, "num_key_value_heads": 4, **ROUTED, "n_routed_experts": 4, "n_group": 1,
        "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
        "v_head_dim": 8, "first_k_dense_replace": 1, "n_shared_experts": 1,
    },
    "llama4_text": {
        **HEADS, "intermediate_size": 32, "intermediate_size_mlp": 64, "num_local_experts": 4,
        "num_experts_per_tok": 1, "moe_layers": [1], "layer_types": ["chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0], "attention_chunk_size": 16,
    },
    "phimoe": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32, "num_local_experts": 4},
    "opt": {"num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128},
    "falcon_h1": {**HEADS, "intermediate_size": 64, **MAMBA, "mamba_d_ssm": 64},
    "bamba": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, **MAMBA, "attn_layer_indices": [1],
    },
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "zamba2": {
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 64, "mamba_d_state": 8,
        "n_mamba_heads": 4, "mamba_ngroups": 1, "chunk_size": 8, "num_hidden_layers": 5, "num_mem_blocks": 1,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "mamba"], "adapter_rank": 4,
    },
}  # fmt: skip


def build(name: str, *, seed: int = 0, vocab: int = 97, experts: str | None = None, **changes: Any) -> PreTrainedModel:
    """A random model of one of `FAMILIES` in eval mode; `experts` is Transformers' experts_implementation."""
    shared = {"pad_token_id": tiny.PAD, "eos_token_id": tiny.EOS, "bos_token_id": None, "initializer_range": 0.2}
    settings = {"vocab_size": vocab, "hidden_size": 32, "num_hidden_layers": 2, **shared, **FAMILIES[name], **changes}
    config = AutoConfig.for_model(name, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen = {} if experts is None else {"experts_implementation": experts}
        model = AutoModelForCausalLM.from_config(config, **chosen)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def save(name: str, folder: Path, **changes: Any) -> Path:
    """Writes the model and the tokenizer of `tiny`; returns the folder."""
    build(name, vocab=tiny.VOCAB, **changes).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder
