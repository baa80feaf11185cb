"""Tiny random models of many architectures and a tiny tokenizer, made in code: no files, no network.

    model = tiny.build("gemma2")                       # 97 tokens, 2 layers, width 32, eval mode
    model = tiny.lora(tiny.build("gpt2"))              # the same with non-zero LoRA on every linear layer
    tiny.save_model(tmp_path / "model")                # a directory that `from_pretrained` loads, with tokenizer

Ids are safe for every architecture: 0 pads, 1 ends a text, 2.. are free. A model that shall read the text of
`tokenizer()` needs `vocab=VOCAB` (`save_model` takes care of it).
"""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

PAD, EOS = 0, 1
VOCAB = 320  # what `tokenizer()` knows: 2 special tokens, 256 bytes, 62 merges
WINDOW = 6  # tokens a sliding-window layer sees

# What Llama-like configurations share is filled in by `configuration`; here is what each one adds.
_LLAMA_LIKE: dict[str, tuple[Callable[..., PretrainedConfig], dict[str, object]]] = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False}),
    "llama-tied": (LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": False}),
    "qwen3": (Qwen3Config, {"tie_word_embeddings": True, "head_dim": 8}),
    "gemma2": (
        Gemma2Config,
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "final_logit_softcapping": 2.0,
            "attn_logit_softcapping": 3.0,
        },
    ),
    "gemma2-uncapped": (
        Gemma2Config,
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "final_logit_softcapping": None,
            "attn_logit_softcapping": None,
        },
    ),
    "gemma3": (Gemma3TextConfig, {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}),
    "olmo2": (Olmo2Config, {"tie_word_embeddings": False}),
    "mistral": (MistralConfig, {"tie_word_embeddings": False, "sliding_window": WINDOW}),
    "phi3": (Phi3Config, {"tie_word_embeddings": False}),
    "granite": (
        GraniteConfig,
        {"tie_word_embeddings": True, "logits_scaling": 3.0, "embedding_multiplier": 2.0},
    ),
    "cohere": (CohereConfig, {"tie_word_embeddings": True, "logit_scale": 0.5}),
    "cohere2": (Cohere2Config, {"tie_word_embeddings": True, "logit_scale": 0.5, "sliding_window": WINDOW}),
}
ARCHITECTURES: tuple[str, ...] = (*_LLAMA_LIKE, "gpt2", "gpt-neox")
TIED: frozenset[str] = frozenset(
    {"llama-tied", "qwen3", "gemma2", "gemma2-uncapped", "gemma3", "granite", "cohere", "cohere2", "gpt2"}
)


def configuration(
    name: str, *, vocab: int = 97, layers: int = 2, width: int = 32, heads: int = 4, kv_heads: int = 2
) -> PretrainedConfig:
    """The tiny configuration of one architecture; no dropout anywhere, weights spread widely (std 0.2)."""
    special = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None, "initializer_range": 0.2}
    if name == "gpt2":
        return GPT2Config(
            vocab_size=vocab, n_layer=layers, n_embd=width, n_head=heads, n_positions=128,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **special,
        )  # fmt: skip
    shared = {
        "vocab_size": vocab,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": heads,
        "max_position_embeddings": 128,
        "attention_dropout": 0.0,
        **special,
    }
    if name == "gpt-neox":
        return GPTNeoXConfig(**shared, tie_word_embeddings=False, hidden_dropout=0.0)
    if name not in _LLAMA_LIKE:
        raise ValueError(f"no tiny model {name!r}, there are {', '.join(ARCHITECTURES)}")
    make, own = _LLAMA_LIKE[name]
    if make in (Gemma2Config, Gemma3TextConfig, Cohere2Config):
        kinds = ("sliding_attention", "full_attention")
        own = {**own, "layer_types": [kinds[layer % 2] for layer in range(layers)]}
    return make(**shared, num_key_value_heads=kv_heads, **own)


def build(
    name: str,
    *,
    vocab: int = 97,
    layers: int = 2,
    width: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
) -> PreTrainedModel:
    """A random model of one of `ARCHITECTURES`, the same for the same arguments, in eval mode.

    Biases and norms are random too, so that leaving one out shows. The caller's random state is untouched.
    `attention=None` is Transformers' own choice: SDPA, but eager for Gemma 2 (5.23 refuses SDPA for it).
    """
    config = configuration(name, vocab=vocab, layers=layers, width=width, heads=heads, kv_heads=kv_heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def counted(vocab: int = 97) -> PreTrainedModel:
    """A RoBERTa: it counts positions from the padding's id, and left padding breaks what is told it."""
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.2}
    return _seeded(RobertaConfig(vocab_size=vocab, hidden_size=32, is_decoder=True, pad_token_id=PAD, **shape))


def recurrent(vocab: int = 97) -> PreTrainedModel:
    """A Mamba: its state reads padding, and it has no cache of keys and values."""
    return _seeded(MambaConfig(vocab_size=vocab, hidden_size=32, num_hidden_layers=2, pad_token_id=PAD))


def _seeded(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def lora(model: PreTrainedModel, r: int = 4, seed: int = 0) -> PeftModel:
    """The model wrapped by LoRA on all linear layers but embedding and head, both factors random (not zero)."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # PEFT 0.21's own call
        torch.manual_seed(seed)
        settings = LoraConfig(
            r=r, lora_alpha=2 * r, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM",
            fan_in_fan_out=model.config.model_type == "gpt2",
        )  # fmt: skip
        return get_peft_model(model, settings).eval()


@cache
def _trained() -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken("<pad>", special=True), AddedToken("<eos>", special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "The capital of France is Paris. She was born in the town of Bern and works in the north as a painter. "
    backend.train_from_iterator([text, text.lower()] * 4, trainer)
    return backend.to_str()


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of exactly `VOCAB` tokens: reads any text, gives character offsets, adds nothing."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()), pad_token="<pad>", eos_token="<eos>"
    )
    made.model_max_length = 128
    return made


def with_first_token() -> PreTrainedTokenizerFast:
    """The same tokenizer, putting <eos> before every text, as Llama's and Gemma's do with <bos>."""
    backend = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing("<eos> $A", special_tokens=[("<eos>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<eos>")


def save_model(folder: Path, name: str = "llama-tied", seed: int = 0) -> Path:
    """Writes a tiny model and its tokenizer as `from_pretrained` wants them; returns the folder."""
    build(name, vocab=VOCAB, seed=seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Path(folder)


def stretched(kind: str, limit: int = 16) -> PreTrainedModel:
    """A Phi-3 whose rotary positions change beyond 16 tokens."""
    config = configuration("phi3")
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4} if kind == "longrope" else {"factor": 2.0}
    config.original_max_position_embeddings = limit
    config.rope_parameters = {
        "rope_type": kind, "rope_theta": 1e4, "original_max_position_embeddings": limit, **factors,
    }  # fmt: skip
    return _seeded(config)
