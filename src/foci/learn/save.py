"""Writes a trained model and its adapter, and loads both again: they must answer as the trained model did."""

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from foci.config.run import ModelConfig
from foci.models import LanguageModel
from foci.models.forward import device_of
from foci.models.language_part import language_config
from foci.models.loading import is_adapter, load_weights, stored_dtype
from foci.models.locate import folder_of
from foci.models.saved_adapter import TOLERANCE, answers, distance, merged, with_adapter
from foci.system import files
from foci.system.run_folder import ArmFolder

SHARD = "500MB"
"""Size of the files of a model whose weights lie on disk: a file is in memory as a whole when it is written."""


@dataclass(frozen=True)
class Saved:
    """The SHA-256 of the trained weights, and sentences about what was written, for people."""

    sha256: str
    notes: tuple[str, ...]


def save(model: LanguageModel, tokenizer: PreTrainedTokenizerFast, folder: ArmFolder, base: ModelConfig) -> Saved:
    """Writes model/ (merged, for Transformers) and adapter/ (for PEFT). Uses the model up: its memory is freed.

    What was written is loaded again and asked 8 tokens. Where one of the two does not answer as the trained model did,
    it is deleted, and a note says so. Upon weights in 4 or 8 bits the adapter alone is written: merged into them it
    would be rounded as they are.
    """
    notes, device = list[str](), device_of(model)
    expected = {folder.adapter: answers(model)} if isinstance(model, PeftModel) else {}
    whole: PreTrainedModel | None
    if isinstance(model, PeftModel):
        _write_adapter(model, folder.adapter, base.name)
        whole, why = _merged(model, folder.adapter, base)
        notes += why
    else:
        whole = model
    if whole is not None:
        expected[folder.model] = answers(whole)
        with files.replacing_folder(folder.model) as part:
            whole.save_pretrained(part, **({"max_shard_size": SHARD} if base.on_disk else {}))
            tokenizer.save_pretrained(part)
        notes += _about_precision(folder.model, base)
    trained = folder.adapter if isinstance(model, PeftModel) else folder.model
    hashes = {path.name: files.sha256(path) for path in sorted(trained.glob("*.safetensors"))}
    below = None
    if isinstance(model, PeftModel) and base.bits is not None:
        below = model.unload()  # weights in few bits cannot be moved away, and a second base would take as much memory
    else:
        nn.Module.to(model, "meta")
    notes += _compared(expected, base, device, below)
    return Saved(next(iter(hashes.values())) if len(hashes) == 1 else json.dumps(hashes), tuple(notes))


def _merged(model: PeftModel, adapter: Path, base: ModelConfig) -> tuple[PreTrainedModel | None, list[str]]:
    """Returns the merged model, or none and a note that says why."""
    if base.bits is not None:
        return None, [
            f"model/ was not written: the adapter stands upon weights in {base.bits} bits; foci export merges it into "
            "the weights of the files, and asks again"
        ]
    try:
        return merged(model, str(adapter)), []
    except ValueError as error:
        return None, [f"model/ was not written: {error}"]


def _write_adapter(model: PeftModel, path: Path, base: str) -> None:
    for settings in model.peft_config.values():
        settings.base_model_name_or_path = base
    with files.replacing_folder(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT looks for the base model's config on the hub
        model.save_pretrained(part, save_embedding_layers=False)
        (part / "README.md").unlink(missing_ok=True)  # PEFT's card names paths of this machine; `foci.card` writes one


def _compared(
    expected: dict[Path, Tensor], base: ModelConfig, device: torch.device, below: PreTrainedModel | None
) -> list[str]:
    """Loads what was saved; deletes what answers in another way, but not all; returns a note for each of these.

    An adapter is put upon `below`; None: upon the base model, loaded again.
    """
    wrong: dict[Path, str] = {}
    for path, wanted in expected.items():
        try:
            off = distance(answers(_loaded(path, base, device, below)), wanted)
        except (ValueError, OSError) as error:
            wrong[path] = f"{path.name}/ cannot be loaded again ({error})"
        else:
            if not off <= TOLERANCE:
                wrong[path] = f"{path.name}/ does not answer as the trained model did (logits are off by {off:.1g})"
    keep = len(wrong) == len(expected)
    for path in wrong if not keep else ():
        shutil.rmtree(path)
    other = " and ".join(f"{path.name}/" for path in expected if path not in wrong)
    cure = "measure it before you use it" if keep else f"it was deleted; use {other}, which does"
    return [f"{words}; {cure}" for words in wrong.values()]


def _loaded(path: Path, base: ModelConfig, device: torch.device, below: PreTrainedModel | None) -> LanguageModel:
    """Returns model/ or adapter/ as a user would load it, the adapter not merged."""
    trust = base.trust_remote_code
    if not is_adapter(path):
        return load_weights(str(path), trust_remote_code=trust).to(device)  # type: ignore[arg-type]
    if below is None:
        below = load_weights(base.name, trust_remote_code=trust, on_disk=base.on_disk).to(device)  # type: ignore[arg-type]
    return with_adapter(below, path, str(path)).to(device)


def _about_precision(path: Path, base: ModelConfig) -> list[str]:
    """Returns notes where a user might expect something else of what was written."""
    notes, below = [], folder_of(base.name, trust_remote_code=base.trust_remote_code)
    stored = stored_dtype(below)
    if stored in ("bfloat16", "float16"):
        size = sum(file.stat().st_size for file in path.glob("*.safetensors")) / 1e6
        notes.append(
            f"model/ is float32 ({size:,.0f} MB), the files of {base.name} are {stored}: rounding would lose a part of "
            "what was learned"
        )
    if is_adapter(below):
        notes.append(
            f"adapter/ stands on {base.name}, which is an adapter itself: foci merges that first; PEFT alone would "
            "not, so take model/ there"
        )
    elif language_config(below, base.name) is not None:
        notes.append(
            f"model/ and adapter/ hold the language part of {base.name} alone, not the parts that read images or sound"
        )
    return notes
