"""Writes the merged model for Transformers and vLLM, in the precision of its base model."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from foci.export.source import Source
from foci.models.gguf import without_bars
from foci.models.loading import load_tokenizer, load_weights
from foci.models.whole import check_weights, read_json, weight_names

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Number formats of weights, as safetensors and as Transformers name them."""
_TOKENIZER = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "tekken.json")
"""Files of a tokenizer that Transformers does not save again, and other programs read."""
_LEFT = ("README.md", ".lock")


def write_merged(source: Source, folder: Path) -> str:
    """Writes weights, configuration, generation settings, tokenizer and chat template; returns the number format.

    Each weight gets the number format that it has in the base model's files. What shares one weight there shares it
    here. Raises ValueError where a weight has no place in that format, and where there is no model to write.
    """
    whole = folder / ".whole"
    model, formats = whole_model(source, whole), _formats(source.base_folder())
    usual = _usual(formats)
    total = 0
    for name in weight_names(model, "model"):
        tensors = dict(_tensors(model / name, formats, usual, source))
        total += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, folder / name, metadata={"format": "pt"})
    for file in model.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name not in _LEFT:
            shutil.copyfile(file, folder / file.name)
    shutil.rmtree(whole, ignore_errors=True)
    copy_small(source.base_folder(), folder)
    _change(folder / "config.json", {"dtype": _DTYPES[usual]})
    for name in weight_names(folder, "model"):  # safetensors writes files that others cannot read
        (folder / name).chmod((folder / "config.json").stat().st_mode)
    if (index := folder / "model.safetensors.index.json").is_file():
        metadata = json.loads(index.read_text("utf-8")).get("metadata") or {}
        _change(index, {"metadata": {**metadata, "total_size": total}})
    return _DTYPES[usual]


def merged_size(source: Source) -> int:
    """Returns about how many bytes `write_merged` writes, and keeps for a while."""
    base = source.base_folder()
    stored = sum((base / name).stat().st_size for name in weight_names(base, "model"))
    if (source.folder.model / "config.json").is_file():
        return stored + 2**24
    per = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}[_usual(_formats(base))]
    return stored + stored * 4 // per + 2**24


def parameters_of(source: Source) -> int:
    """Returns about how many weights the merged model has."""
    base = source.base_folder()
    stored = sum((base / name).stat().st_size for name in weight_names(base, "model"))
    return stored // {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}[_usual(_formats(base))]


def whole_model(source: Source, place: Path) -> Path:
    """Returns the folder of the merged float32 model: the run's own or, where it is not there, made again at `place`.

    Raises ValueError where its config.json cannot be read, where its weights are not those that the run wrote and, with
    the command that exports the adapter, where the adapter cannot be merged.
    """
    if (source.folder.model / "config.json").is_file():
        read_json(source.folder.model / "config.json")
        check_weights(source.folder.model, "model")
        source.chosen.check_weights(source.folder.model)
        return source.folder.model
    source.chosen.check_weights(source.folder.adapter)
    try:
        model = load_weights(str(source.folder.adapter), trust_remote_code=source.trust)
    except ValueError as error:
        raise ValueError(
            f"there is no merged model in {source.folder.model}, and it cannot be made from the adapter: {error}. The "
            f"adapter alone: {source.command('--adapter')}"
        ) from None
    with without_bars():
        model.save_pretrained(place)
    load_tokenizer(source.run.model.name, trust_remote_code=source.trust).save_pretrained(place)
    return place


def copy_small(base: Path, folder: Path) -> None:
    """Copies files of a tokenizer and of generation, that lie beside the base model's weights, where they are not."""
    for name in (*_TOKENIZER, "generation_config.json"):
        if (base / name).is_file() and not (folder / name).exists():
            shutil.copyfile(base / name, folder / name)


def _tensors(file: Path, formats: dict[str, str], usual: str, source: Source) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the weights of a file in the number formats of the base model."""
    with safe_open(file, "pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            tensor = opened.get_tensor(key)
            dtype = getattr(torch, _DTYPES[formats.get(key, usual)])
            cast = tensor.to(dtype) if tensor.is_floating_point() else tensor
            if not bool(torch.isfinite(cast).all()):
                raise ValueError(
                    f"the weight {key} of the arm {source.arm} has numbers up to {float(tensor.abs().max()):.3g}, too "
                    f"large for {dtype}, the format of the base model {source.run.model.name}; take "
                    f"{source.folder.model} as it is, in float32"
                )
            yield key, cast.contiguous()


def _formats(base: Path) -> dict[str, str]:
    """Returns the number format of each weight in the base model's files, as safetensors names it."""
    found: dict[str, str] = {}
    for name in weight_names(base, "model"):
        with safe_open(base / name, "pt") as opened:
            found |= {key: opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118
    return {key: kind for key, kind in found.items() if kind in _DTYPES}


def _usual(formats: dict[str, str]) -> str:
    """Returns the commonest number format."""
    return Counter(formats.values()).most_common(1)[0][0] if formats else "F32"


def _change(file: Path, values: dict[str, object]) -> None:
    """Replaces fields of a JSON file."""
    known = json.loads(file.read_text("utf-8"))
    known.pop("torch_dtype", None)
    file.write_text(json.dumps({**known, **values}, indent=2, ensure_ascii=False) + "\n", "utf-8")
