"""Writes a trained model and its adapter."""

import json
import warnings

from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerFast

from foci.learn.folder import ArmFolder
from foci.system import files


def save(model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: ArmFolder, base: str) -> str:
    """Writes model/ (merged, for Transformers) and adapter/ (for PEFT); returns the SHA-256 of the trained weights."""
    trained = folder.model
    if isinstance(model, PeftModel):
        trained = folder.adapter
        for settings in model.peft_config.values():
            settings.base_model_name_or_path = base
        with files.replacing_folder(folder.adapter) as part, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT looks for the base model's config on the hub
            model.save_pretrained(part, save_embedding_layers=False)
        model = model.merge_and_unload()
    with files.replacing_folder(folder.model) as part:
        model.save_pretrained(part)  # type: ignore[operator]
        tokenizer.save_pretrained(part)
    hashes = {path.name: files.sha256(path) for path in sorted(trained.glob("*.safetensors"))}
    return next(iter(hashes.values())) if len(hashes) == 1 else json.dumps(hashes)
