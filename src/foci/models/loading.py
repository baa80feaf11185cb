"""Loads a causal language model and its tokenizer, and checks that foci can train them."""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from foci.config.run import ModelConfig
from foci.models.architecture import (
    LanguageModel,
    blocks,
    check_causal,
    fingerprint,
    layer_count,
    max_length,
)
from foci.models.gguf import quiet
from foci.models.head import head_of
from foci.models.language_part import NAMES, language_config, told_of_scale
from foci.models.locate import check_tokenizer_files, folder_of
from foci.models.on_disk import check_folder, float32_files, put_on_disk
from foci.models.quantised import arguments, made_exact, scales
from foci.models.saved_adapter import merged, with_adapter
from foci.models.targets import expert_stacks
from foci.models.whole import check_numbers, explained, read_json

_BUFFER = re.compile(r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|num_batches_tracked)$")


@dataclass(frozen=True)
class Loaded:
    """A model that can be trained, and its tokenizer, which gives offsets and has a padding token.

    Weights are float32; those of linear layers may be stored in 4 or 8 bits (`foci.models.quantised`), and never train.
    `fingerprint` identifies configuration and weights, `max_length` is in tokens, `compute_dtype` is the number format
    for autocast.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    name: str
    fingerprint: str
    max_length: int
    compute_dtype: torch.dtype


def load(
    name: str,
    *,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    bits: int | None = None,
    on_disk: bool = False,
) -> Loaded:
    """Loads a causal language model, in eval mode, and its tokenizer.

    `name` is an embedded model, a hub id, a folder or a .gguf file. The folder of a PEFT adapter is loaded with its
    base model (which may be an adapter again) and merged into it. Of a model that reads images or sound, the language
    part is loaded. Weights are float32; with `bits` 4 or 8 those of linear layers are stored in so many, for an
    adapter to train upon. With `on_disk` they lie in files of the folder for temporary files (`foci.models.on_disk`).
    `dtype` ("auto", "float32", "bfloat16") chooses only the number format of the forward pass (`compute_dtype`).
    `device=None` takes CUDA if there is a GPU. Raises ValueError, with the cure, for a model that foci cannot train.
    """
    device = _device(device, looks=not on_disk)
    compute = compute_dtype(dtype, device)
    folder = folder_of(name, trust_remote_code=trust_remote_code)
    tokenizer = _tokenizer_of(folder, name, trust_remote_code)
    model = _model_in(folder, name, trust_remote_code, on_disk=on_disk, **_stored(folder, name, bits, device, on_disk))
    _check_pair(model, tokenizer, name)
    model = (model if bits else model.to(device)).eval()
    blocks(model)  # refuses a parameter that stands in no block
    check_causal(model)
    head_of(model)  # refuses logits that it cannot compute
    return Loaded(model, tokenizer, name, fingerprint(model), max_length(model), compute)


def _device(name: str | None, *, looks: bool) -> str:
    """Returns a device's name; None: CUDA if there is a GPU. With `looks`, ValueError for one that is not there."""
    if name is None or not looks:
        return name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); name another one, such as 'cpu'") from None
    return name


def load_configured(settings: ModelConfig, name: str | None = None) -> Loaded:
    """Loads the model of a run file's `model`; `name` takes the place of its name. Errors as in `load`."""
    return load(
        name or settings.name,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        bits=settings.bits,
        on_disk=settings.on_disk,
    )


def _stored(folder: Path, name: str, bits: int | None, device: str, on_disk: bool) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for weights in so many bits.

    Raises ValueError for an adapter, and for weights on disk that are in few bits, for a GPU, or would lie in memory.
    """
    if on_disk and (bits is not None or torch.device(device).type != "cpu"):
        what = f"to model.bits: {bits}" if bits is not None else f"on the device {device}"
        raise ValueError(
            f"model.on_disk: true keeps weights in float32 for a CPU, which does not go {what}; leave one of the two "
            "out (CUDA_VISIBLE_DEVICES='' computes on the CPU where there is a GPU)"
        )
    if on_disk:
        check_folder()
    if bits is not None and is_adapter(folder):
        raise ValueError(
            f"model {name!r} is an adapter, which is merged into float32 weights, so model.bits: {bits} cannot hold; "
            "name the folder of a whole model, such as the model/ of its run, or leave model.bits out"
        )
    return arguments(bits, device)


def _model(
    folder: Path,
    name: str,
    trust_remote_code: bool,
    dtype: torch.dtype = torch.float32,
    *,
    on_disk: bool = False,
    **stored: Any,
) -> PreTrainedModel:
    """Returns the model of a folder, checked; with `on_disk` its weights lie in files."""
    text = language_config(folder, name)
    with float32_files(folder) if on_disk else nullcontext(folder) as files:
        part: dict[str, Any] = {} if text is None else {"config": text, "key_mapping": NAMES}
        with quiet(), explained(name, "configuration and weights", folder):
            model, report = AutoModelForCausalLM.from_pretrained(
                files,
                **part,
                **stored,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, in words that name them
            )
        model.name_or_path = model.config.name_or_path = str(folder)  # not a temporary one
        if text is not None:
            vars(model).pop("_weight_conversions", None)  # save_pretrained would write the names of the whole model
        _check_fit(model, report, name, text is not None)
        if stored:
            made_exact(model, name)
        _check_embedding(model, files, name)
        if on_disk:
            _check_parts(model, name)
            put_on_disk(model)
    if text is not None and (words := told_of_scale(text, folder)):
        warnings.warn(f"model {name!r}: {words}", stacklevel=2)
    return model


def _check_parts(model: PreTrainedModel, name: str) -> None:
    """Refuses stacked experts on disk: to load, train and save them takes memory for all of them."""
    if stacks := expert_stacks(model):
        raise ValueError(
            f"model {name!r} ({type(model).__name__}) keeps its experts in stacks ({next(iter(stacks))}, ...), which "
            "are in memory as a whole while they are loaded, trained upon and saved, so model.on_disk: true would "
            "save none; leave it out, or name a model without stacked experts"
        )


def _check_fit(model: PreTrainedModel, report: Mapping[str, Any], name: str, part: bool) -> None:
    """Raises ValueError where weights are missing, have another size, have no place in the model, or are no numbers.

    `part`: the model is the language part of a larger one, whose other weights have no place.
    """
    both = "the files do not belong to its config.json, get both again"
    if missing := sorted(report["missing_keys"]):
        cure = "the language part of this model is stored in a way that is unknown here; name a model of text alone"
        raise ValueError(
            f"model {name!r}: {len(missing)} weights are not in its files and would be random "
            f"({', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}); {cure if part else both}"
        )
    if others := sorted(report["mismatched_keys"]):
        key, found, expected = others[0]
        raise ValueError(
            f"model {name!r}: its files have weights of another size than its configuration gives them ({key} is "
            f"{tuple(found)}, expected {tuple(expected)}{_more(others, 1)}); {both}"
        )
    if left := _without_place(model, report["unexpected_keys"]):
        raise ValueError(
            f"model {name!r}: its files have weights without a place in the model of {layer_count(model)} layers that "
            f"its configuration makes, which would be left out ({', '.join(left[:2])}{_more(left, 2)}); {both}"
        )
    check_numbers(_numbers(model), f"model {name!r}")


def _numbers(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields all weights by name; of those in few bits also their scales, in which a number that is none ends up."""
    for key, weight in model.named_parameters():
        yield key, weight
        yield from ((key, scale) for scale in scales(weight))


def _more(found: Sequence[object], named: int) -> str:
    return f", and {len(found) - named} more" if len(found) > named else ""


def _without_place(model: PreTrainedModel, unexpected: Collection[str]) -> list[str]:
    """Returns the weights of layers that a file has and the model has not, sorted.

    Layers after the last one that predict further tokens (`num_nextn_predict_layers`, as of DeepSeek-V3) are left out
    by Transformers too, and so are the buffers of older versions.
    """
    numbered = re.compile(r"(.*?)\.(\d+)\.")
    found = [match for key in model.state_dict() if (match := numbered.match(key))]
    own = {(match[1], int(match[2])) for match in found}
    most = {prefix: max(number for one, number in own if one == prefix) for prefix, _ in own}
    further = getattr(model.config, "num_nextn_predict_layers", None) or 0
    left = []
    for key in unexpected:
        match = numbered.match(key)
        if match is None or match[1] not in most or _BUFFER.search(key):
            continue
        if not 0 < int(match[2]) - most[match[1]] <= further:
            left.append(key)
    return sorted(left)


def _check_embedding(model: PreTrainedModel, folder: Path, name: str) -> None:
    """Refuses a model whose first embeddings are not those of its file: Transformers rescales Youtu's at every load."""
    weight = model.get_input_embeddings().weight
    key = next((key for key, parameter in model.named_parameters() if parameter is weight), "")
    index = folder / "model.safetensors.index.json"
    file = folder / (read_json(index)["weight_map"].get(key, "") if index.is_file() else "model.safetensors")
    if not file.is_file():
        return
    with safe_open(file, "pt") as tensors:
        if key not in tensors.keys() or tensors.get_slice(key).get_shape() != list(weight.shape):  # noqa: SIM118
            return
        stored = tensors.get_slice(key)[:8].to(weight.dtype).float()
    if not torch.equal(stored, weight.detach()[:8].float().cpu()):
        raise ValueError(
            f"model {name!r} ({type(model).__name__}): Transformers loads other numbers into {key} than the file has, "
            "so a model that foci saves would not be the model that it trained; use a model of another type"
        )


def _tokenizer(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedTokenizerFast:
    check_tokenizer_files(folder, name)
    config = folder / "tokenizer_config.json"
    if config.is_file() and "auto_map" in read_json(config) and not trust_remote_code:
        raise ValueError(
            f"the tokenizer of {name!r} wants to run code of its own (auto_map in tokenizer_config.json); "
            f"set trust_remote_code: true if you have read that code and trust it"
        )
    with quiet(), explained(name, "the tokenizer", folder):
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


def load_weights(
    name: str,
    *,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
    bits: int | None = None,
    device: str = "cpu",
    on_disk: bool = False,
) -> PreTrainedModel:
    """Returns the model of a name alone, without the checks of `load`; adapters are merged, in float32.

    It lies on the CPU, with `on_disk` in files; on `device` where `bits` says in how many bits linear layers lie.
    """
    folder = folder_of(name, trust_remote_code=trust_remote_code)
    stored = _stored(folder, name, bits, device, on_disk)
    if not is_adapter(folder):
        return _model(folder, name, trust_remote_code, dtype, on_disk=on_disk, **stored)
    return _model_in(folder, name, trust_remote_code, on_disk=on_disk).to(dtype)


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a name alone; raises ValueError, with the cure, where there is none."""
    return _tokenizer_of(folder_of(name, trust_remote_code=trust_remote_code), name, trust_remote_code)


def base_of_adapter(folder: Path, name: str, trust_remote_code: bool = False) -> tuple[Path, str]:
    """Returns the folder and the name of an adapter's base model. Raises ValueError where it cannot be found."""
    settings = read_json(folder / "adapter_config.json")
    base_name = settings.get("base_model_name_or_path")
    if not isinstance(base_name, str) or not base_name:
        raise ValueError(
            f"the adapter {name!r} names no base model; write the name or the place of the model that it was trained "
            f"on into base_model_name_or_path of {folder / 'adapter_config.json'}"
        )
    try:
        base = folder_of(base_name, trust_remote_code=trust_remote_code, fetches=False)
    except ValueError as error:
        raise ValueError(
            f"the adapter {name!r} needs its base model {base_name!r}: {error}; if the base lies elsewhere "
            f"now, write its place into base_model_name_or_path of {folder / 'adapter_config.json'}"
        ) from None
    if _leads_back(base, folder):
        raise ValueError(
            f"the adapter {name!r} names itself as its base model, or one that is an adapter upon it; write the base "
            f"model's name into base_model_name_or_path of {folder / 'adapter_config.json'}"
        )
    return base, base_name


def _leads_back(base: Path, folder: Path) -> bool:
    """Returns whether the base models from `base` on come back to one that was there before, as `folder` is."""
    seen = {folder.resolve()}
    with suppress(ValueError, TypeError, KeyError, OSError):  # no adapter, or a base that is told when it is loaded
        while (here := base.resolve()) not in seen:
            seen.add(here)
            base = folder_of(read_json(base / "adapter_config.json")["base_model_name_or_path"], fetches=False)
        return True
    return False


def _model_in(folder: Path, name: str, trust_remote_code: bool, *, on_disk: bool, **stored: Any) -> PreTrainedModel:
    """Returns the model of a folder; an adapter is merged into its base model, which may be an adapter itself."""
    if not is_adapter(folder):
        return _model(folder, name, trust_remote_code, on_disk=on_disk, **stored)
    base = _model_in(*base_of_adapter(folder, name, trust_remote_code), trust_remote_code, on_disk=on_disk)
    return merged(with_adapter(base, folder, name), name)


def _tokenizer_of(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a folder; of an adapter without its own, that of its base model."""
    if is_adapter(folder) and not (folder / "tokenizer.json").is_file():
        return _tokenizer_of(*base_of_adapter(folder, name, trust_remote_code), trust_remote_code)
    return _tokenizer(folder, name, trust_remote_code)


def stored_dtype(folder: Path) -> str | None:
    """Returns the number format that a model's configuration states for its files; of an adapter, its base model's."""
    if is_adapter(folder):
        return stored_dtype(base_of_adapter(folder, str(folder))[0])
    config = read_json(folder / "config.json")
    stated = config.get("dtype") or config.get("torch_dtype")
    return str(stated).removeprefix("torch.") if stated else None


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder holds an adapter of PEFT."""
    return (folder / "adapter_config.json").is_file()


def _check_pair(model: LanguageModel, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Raises ValueError if the tokenizer is that of another model: many of its tokens have no row in the embedding.

    Tokens that were added to a tokenizer may have none: the model was never given them. A text that holds one is
    refused when it is read (`forward.check_ids`).
    """
    rows, added = model.get_input_embeddings().weight.shape[0], tokenizer.get_added_vocab()
    without = [token for token, number in tokenizer.get_vocab().items() if number >= rows and token not in added]
    if len(without) > rows // 100:
        raise ValueError(
            f"the tokenizer does not belong to the model {name!r}: it has {max(tokenizer.get_vocab().values()) + 1} "
            f"tokens, the model's embedding {rows} rows; take the tokenizer the model was trained with"
        )
    if tokenizer.pad_token_id >= rows:  # padding is masked, so any token will do
        first = tokenizer.convert_ids_to_tokens(0)
        tokenizer.pad_token = tokenizer.eos_token if (tokenizer.eos_token_id or rows) < rows else first


def compute_dtype(dtype: str, device: str) -> torch.dtype:
    """Returns the number format for autocast: `"auto"` is bfloat16 if the machine has it in hardware, else float32.

    On a CPU that means oneDNN with AVX512-BF16 or AMX; on CUDA, not emulated. Raises ValueError for another name.
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
