"""Finds the folder of a model by its name: embedded, on disk, in a GGUF file or on the hub.

Models that foci cannot use are refused by file names and configuration, before anything large is downloaded or loaded.
"""

import difflib
import glob
import os
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

from foci.config.values import PICKLES, meant_as_path
from foci.models.gguf import EMBEDDED, converted, embedded_file
from foci.models.language_part import check_direction, language_config
from foci.models.stated import check_stated
from foci.models.whole import check_pointer, check_weights, read_json, weight_names

SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "README.md"]
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
TOKENIZER_JSON = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
OFFLINE = f"a local folder, a .gguf file or an embedded model ({', '.join(EMBEDDED)}) works without a network"


def folder_of(name: str, *, trust_remote_code: bool = False, fetches: bool = True) -> Path:
    """Returns the local folder of a model; `name` is an embedded model, a folder, a .gguf file or a hub id.

    The folder has the configuration and the safetensors of a model or of a PEFT adapter. Raises ValueError, with the
    cure, if there is no such model or foci cannot use it. `fetches=False`, for a name that a file holds: a hub id is
    taken where the user has fetched it before, and never fetched.
    """
    if name in EMBEDDED:
        return converted(embedded_file(name), label=name)
    path = Path(name).expanduser()
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        if meant_as_path(name):
            raise ValueError(
                f"no model at {name!r}: there is no such file or folder{_nearest(path) or '; check the path'}"
            )
        path = _from_hub(name, trust_remote_code) if fetches else _fetched(name)
    check_folder(path, name, trust_remote_code=trust_remote_code)
    return path


def check_folder(folder: Path, name: str, *, trust_remote_code: bool = False) -> None:
    """Raises ValueError for a folder without a causal language model (or PEFT adapter) in safetensors."""
    if (folder / "adapter_config.json").is_file():
        _check_weights(folder, name, "adapter_model")
        return
    _check_config(folder, name, trust_remote_code)
    _check_weights(folder, name, "model")


def check_tokenizer_files(folder: Path, name: str) -> None:
    """Raises ValueError for a model folder without a tokenizer."""
    for file in TOKENIZER_JSON:
        if (folder / file).is_file():
            read_json(folder / file)
    found = [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()]
    for path in found:
        check_pointer(path)
    if not found:
        raise ValueError(
            f"model {name!r} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is in its folder; save "
            f"the tokenizer of the model it was made from there: AutoTokenizer.from_pretrained(ORIGIN)"
            f".save_pretrained({str(folder)!r})"
        )


def _of_file(path: Path) -> Path:
    if path.suffix == ".gguf":
        return converted(path)
    if path.suffix in PICKLES:
        raise ValueError(_pickle_error(str(path), [path.name], path.parent))
    raise ValueError(
        f"a model is a folder, a .gguf file or a hub id, got the file {str(path)!r}; "
        f"name the folder that holds config.json and the .safetensors files"
    )


def _nearest(path: Path) -> str:
    """Returns "; did you mean ...?" with the most similar embedded model or neighbouring path, or nothing."""
    known = [*EMBEDDED]
    if path.parent.is_dir():
        known += [str(path.parent / entry.name) for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _from_hub(name: str, trust_remote_code: bool) -> Path:
    code = ["*.py"] if trust_remote_code else []
    folder = _download(name, SMALL_FILES + code, ["*/*"])
    stem = "adapter_model" if (folder / "adapter_config.json").is_file() else "model"
    if stem == "model":
        _check_config(folder, name, trust_remote_code)  # before the large files are asked for
    return _download(name, [glob.escape(file) for file in weight_names(folder, stem)])


def _fetched(name: str) -> Path:
    """Returns the folder of a hub model that is on this machine. Raises ValueError where it is not."""
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        raise ValueError(
            f"it is not on this machine, and foci fetches nothing because a file names it; if you want it, fetch it "
            f"yourself: hf download {name}"
        ) from None


def _download(name: str, patterns: list[str], ignored: list[str] | None = None) -> Path:
    """Downloads the hub's files that match and returns their folder; without a network, one downloaded before.

    `*` in a pattern matches "/" too, so `ignored` keeps folders out.
    """
    try:
        # The variable is read here, not only when huggingface_hub is imported. No answer in 5 s: no network.
        endpoint = os.environ.get("HF_ENDPOINT")
        return Path(
            snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignored, etag_timeout=5, endpoint=endpoint)
        )
    except GatedRepoError:
        cure = f"accept its terms on https://huggingface.co/{name} and log in with `hf auth login`"
        raise ValueError(f"the hub model {name!r} is gated: {cure}") from None
    except RepositoryNotFoundError:
        cure = "check the spelling, or log in with `hf auth login` if it is private"
        raise ValueError(f"the hub has no model {name!r}{_nearest(Path(name))}; {cure}") from None
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"no folder {name!r} here{_nearest(Path(name))}, and as a hub id it could not be downloaded "
            f"({reason or type(error).__name__}); {OFFLINE}"
        ) from None


def _check_config(folder: Path, name: str, trust_remote_code: bool) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"model {name!r} has no config.json in {folder}; name a folder saved by save_pretrained")
    config = read_json(path)
    _check_types(path, config)
    check_stated(config, path)
    config = {key: value for key, value in config.items() if value is not None}
    if "auto_map" in config and not trust_remote_code:
        code = ", ".join(sorted(str(value) for value in config["auto_map"].values()))
        raise ValueError(
            f"model {name!r} wants to run code of its own ({code}); set trust_remote_code: true if you have "
            f"read that code and trust it, or take auto_map out of its config.json if Transformers knows the type "
            f"{config.get('model_type')!r} by itself"
        )
    if "quantization_config" in config:
        raise ValueError(
            f"model {name!r} is quantised ({config['quantization_config'].get('quant_method', 'unknown')}); "
            f"its weights cannot be trained in float32: name the original model or a .gguf file"
        )
    check_direction(config.get("use_bidirectional_attention"), name, f"model type {config.get('model_type')!r}")
    if "AutoModelForCausalLM" not in config.get("auto_map", {}) and language_config(folder, name) is None:
        _check_causal_class(config, name)


def _check_types(path: Path, config: dict[str, Any]) -> None:
    """Raises ValueError where a field that foci reads itself holds a value of another type than it should."""
    kinds = {"model_type": str, "architectures": list, "auto_map": dict, "quantization_config": dict}
    for name, kind in kinds.items():
        value = config.get(name)
        listed = value if isinstance(value, list) else []
        if (value is not None and not isinstance(value, kind)) or not all(isinstance(item, str) for item in listed):
            raise ValueError(
                f"{path}: expected {name} as {kind.__name__}, got {str(value)[:60]!r}; get the file again "
                "from where the model came from"
            )


def _check_causal_class(config: dict[str, Any], name: str) -> None:
    kind = config.get("model_type")
    causal = CAUSAL.get(kind, ())
    known = {causal} if isinstance(causal, str) else set(causal)
    classes = config.get("architectures") or []
    if config.get("is_encoder_decoder") or not known or (classes and not known & set(classes)):
        got = f"{', '.join(classes) or 'no class named'}, model type {kind!r}"
        kinds = "encoder-decoder, masked, classification and headless models are not supported"
        raise ValueError(
            f"model {name!r} is not a causal language model ({got}); {kinds}: "
            f"name a decoder with its LM head, such as {', '.join(sorted(known)) or 'LlamaForCausalLM'}"
        )


def _check_weights(folder: Path, name: str, stem: str) -> None:
    files = [entry.name for entry in folder.iterdir()]
    if {f"{stem}.safetensors", f"{stem}.safetensors.index.json"} & set(files):
        check_weights(folder, stem)
        return
    pickles = sorted(file for file in files if file.endswith(PICKLES))
    if pickles:
        raise ValueError(_pickle_error(name, pickles, folder))
    raise ValueError(
        f"model {name!r} has no weights: no {stem}.safetensors (or its index) in {folder}; "
        f"name a folder saved by save_pretrained, or a hub model with safetensors"
    )


def _pickle_error(name: str, pickles: list[str], folder: Path) -> str:
    return (
        f"model {name!r} is a pickle checkpoint ({', '.join(pickles)}): reading one can run any code, so "
        f'foci reads safetensors only; if you trust it, convert it once: python -c "from transformers import '
        f"AutoModelForCausalLM as M; M.from_pretrained('{folder}', use_safetensors=False)"
        f".save_pretrained('NEW_FOLDER')\", and copy its tokenizer files"
    )
