"""Everything foci knows of a Hugging Face causal language model: loading, adapters, fingerprint.

    loaded = load("smollm2-135m")            # or a hub id, a folder, a .gguf file, a PEFT adapter
    block_of("model.layers.3.mlp.up_proj.weight")       # "layers.3"
    head = head_of(loaded.model)             # logits = softcap(scale * module(hidden))
    model = add_adapter(loaded.model, Adapter(r=16))

How a loaded model is read (blocks, LM head, checks) is in `architecture`, where its files come from in
`sources` and `embedded`; the names of `architecture` are given on from here.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, OSFConfig, PeftConfig, PeftModel, PeftType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from foci.architecture import (
    UNLIMITED,
    Head,
    base_of,
    block_of,
    blocks,
    check_causal,
    check_head,
    evaluating,
    head_of,
    layer_count,
    max_length,
)
from foci.embedded import quiet
from foci.sources import check_tokenizer_files, folder_of, read_json

__all__ = [
    "UNLIMITED",
    "Adapter",
    "Head",
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
]


@dataclass(frozen=True)
class Loaded:
    """A model ready to be trained: weights float32, its tokenizer with offsets and a padding token.

    `fingerprint` identifies configuration and weights, `max_length` is in tokens, `compute_dtype` is what
    autocast should compute in.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    name: str
    fingerprint: str
    max_length: int
    compute_dtype: torch.dtype


ADAPTERS = ("lora", "rslora", "dora", "osf")
"""Adapter types that foci sets up; the names of PEFT's documentation."""
NO_CORDA = (
    "CorDA is not set up by foci: it needs a pass over text before training and moves part of each base weight into "
    "the adapter, so that the saved adapter does not fit the untouched base; use lora, rslora, dora or osf, or wrap "
    "the model yourself (peft.tuners.lora.corda.preprocess_corda) and give it to FocusTrainer"
)
"""Why the one adapter that is asked for by name is refused."""


@dataclass(frozen=True)
class Adapter:
    """What is trained in place of the weights: `lora`, `rslora`, `dora` or `osf`, all as PEFT has them.

    `r` is the rank of each update and `dropout` acts on the adapter's input. The update is scaled by alpha / r;
    `rslora` scales by alpha / sqrt(r) (arXiv 2312.03732), `dora` also learns the norm of each row of the weight
    (2402.09353).
    `osf` (2504.07097) has no such settings: the larger half of each weight's singular directions is frozen, the
    smaller half trains.
    """

    type: str = "lora"
    r: int = 16
    alpha: int | float = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.type == "corda":
            raise ValueError(NO_CORDA)
        if self.type not in ADAPTERS:
            offered = ", ".join(sorted(kind.value.lower() for kind in PeftType))
            raise ValueError(
                f"adapter type {self.type!r} is not one foci sets up ({', '.join(ADAPTERS)}). The installed PEFT "
                f"offers {offered}: for another of them, wrap the model with peft.get_peft_model and give it to "
                "FocusTrainer"
            )
        if self.type == "osf" and (self.r, self.alpha, self.dropout) != (16, 32, 0):
            raise ValueError(
                f"an osf adapter has no r, alpha or dropout (half of the singular directions train), got r {self.r}, "
                f"alpha {self.alpha}, dropout {self.dropout}; leave them out"
            )
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"an adapter needs r >= 1, alpha > 0 and 0 <= dropout < 1, got {self}")


def load(name: str, *, dtype: str = "auto", device: str | None = None, trust_remote_code: bool = False) -> Loaded:
    """Loads a causal LM and its tokenizer by embedded name, hub id, folder or .gguf path, in eval mode.

    Weights are float32 whatever `dtype` is: that only chooses what is computed in (`compute_dtype`). A PEFT
    adapter's folder is loaded with its base model and merged into it, so that it can be trained in every way.
    `device=None` takes CUDA where there is one. Raises ValueError, with the cure, for what foci cannot train.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    compute = compute_dtype(dtype, device)
    folder = folder_of(name, trust_remote_code=trust_remote_code)
    if (folder / "adapter_config.json").is_file():
        model, tokenizer = _merged(folder, name, trust_remote_code)
    else:
        tokenizer = _tokenizer(folder, name, trust_remote_code)
        model = _model(folder, name, trust_remote_code)
    _check_pair(model, tokenizer, name)
    model = model.to(device).eval()
    blocks(model)  # refuses a parameter that stands in no block
    check_causal(model)
    check_head(model)
    return Loaded(model, tokenizer, name, fingerprint(model), max_length(model), compute)


def _model(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedModel:
    with quiet():
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"model {name!r}: {len(missing)} weights are not in its files and would be random "
            f"({', '.join(missing[:4])}...); the files do not belong to its config.json, get both again"
        )
    return model


def _tokenizer(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedTokenizerFast:
    check_tokenizer_files(folder, name)
    config = folder / "tokenizer_config.json"
    if config.is_file() and "auto_map" in read_json(config) and not trust_remote_code:
        raise ValueError(
            f"the tokenizer of {name!r} wants to run code of its own (auto_map in tokenizer_config.json); "
            f"set trust_remote_code: true if you have read that code and trust it"
        )
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {name!r}, a {type(tokenizer).__name__}, has no fast backend and gives no "
            f"character offsets; save one with a tokenizer.json (transformers.convert_slow_tokenizer) next to the model"
        )
    if tokenizer.pad_token is None:  # padding is masked, so any token will do
        if tokenizer.eos_token is None:
            raise ValueError(f"the tokenizer of {name!r} has neither pad nor eos token; set one and save it again")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _merged(folder: Path, name: str, trust_remote_code: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Base and adapter as one plain model; the tokenizer is the adapter folder's own, else the base's."""
    base_name = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    try:
        base = folder_of(str(base_name), trust_remote_code=trust_remote_code)
    except ValueError as error:
        raise ValueError(
            f"the adapter {name!r} needs its base model {base_name!r}: {error}; if the base lies elsewhere "
            f"now, write its place into base_model_name_or_path of {folder / 'adapter_config.json'}"
        ) from None
    model = _model(base, str(base_name), trust_remote_code)
    with quiet(), _peft_quiet():
        merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    own = (folder / "tokenizer.json").is_file()
    return merged, _tokenizer(folder if own else base, name, trust_remote_code)


def _check_pair(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    rows, known = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    if known > rows:
        raise ValueError(
            f"the tokenizer does not belong to the model {name!r}: it has {known} tokens, the model's "
            f"embedding {rows} rows; take the tokenizer the model was trained with"
        )


def compute_dtype(dtype: str, device: str) -> torch.dtype:
    """What autocast should compute in: `"auto"` is bfloat16 where the machine computes it natively.

    Native means: oneDNN with AVX512-BF16 or AMX on a CPU, not emulated on CUDA. Elsewhere float32.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"dtype is 'auto', 'float32' or 'bfloat16', got {dtype!r}")
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native = kind == "cpu" and torch.backends.mkldnn.is_available() and has
    return torch.bfloat16 if dtype == "bfloat16" or (dtype == "auto" and native) else torch.float32


@contextmanager
def _peft_quiet() -> Iterator[None]:
    with warnings.catch_warnings():  # PEFT 0.21 asks Transformers 5.23 for a property of an older name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def add_adapter(model: PreTrainedModel | PeftModel, settings: Adapter) -> PeftModel:
    """Wraps a model by an adapter on all linear layers but embedding and head. Only the adapter trains (float32).

    LoRA's first factor is drawn from torch's global generator: seed it before. The second is 0, so that the
    model answers as before until it is trained (an `osf` model to rounding). Raises ValueError where there is an
    adapter already, or no layer that the adapter could adapt.
    """
    if isinstance(model, PeftModel):
        raise ValueError(  # noqa: TRY004
            f"the model already has an adapter ({', '.join(model.peft_config)}); merge_and_unload it first"
        )
    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 stores W transposed
    if settings.type == "osf" and transposed:
        raise ValueError(
            f"{type(model).__name__} has Conv1D layers, and PEFT's OSF adapts nn.Linear alone; use lora, rslora or dora"
        )
    with _peft_quiet():
        return get_peft_model(model, _peft_config(settings, transposed), autocast_adapter_dtype=True)


def _peft_config(settings: Adapter, transposed: bool) -> PeftConfig:
    if settings.type == "osf":
        return OSFConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.type == "rslora",
        use_dora=settings.type == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed,
    )


_NOT_THE_MODEL = re.compile(r"^(_.*|transformers_version|architectures|(torch_)?dtype|use_cache)$")


def fingerprint(model: PreTrainedModel | PeftModel) -> str:
    """16 hex digits of sha256 over the configuration and every byte of every weight (adapters too).

    The same after saving and loading; names of files, versions and attention implementations do not count.
    """
    fields = {k: v for k, v in base_of(model).config.to_dict().items() if not _NOT_THE_MODEL.match(k)}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode())
    for name, value in sorted(model.named_parameters()):  # tied weights once
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
