"""Tiny models whose attention is unlike a Llama's, and a count of the largest tensor that is made."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertModel,
    GptOssConfig,
    GptOssForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

import tiny


def gpt_oss(layers: int = 2):
    """Learned sinks, sliding windows, grouped queries."""
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=97, hidden_size=32, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=tiny.WINDOW, num_local_experts=2, num_experts_per_tok=1,
        max_position_embeddings=128, pad_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    model = GptOssForCausalLM(config).eval()
    for layer in model.model.layers:
        layer.self_attn.sinks.data.fill_(2.0)
    return model


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=97, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        initializer_range=0.5,
    )  # fmt: skip
    return BertModel(config).eval()


def modern_bert():
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=16,
        pad_token_id=0, local_attention=6, global_attn_every_n_layers=3, initializer_range=0.5,
        eos_token_id=1, bos_token_id=1, cls_token_id=1, sep_token_id=1,
    )  # fmt: skip
    return ModernBertForMaskedLM(config).eval()


class Largest(TorchDispatchMode):
    """The most elements any result of an operation had."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.dtype.itemsize)
        return made
