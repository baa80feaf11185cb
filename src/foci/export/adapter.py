"""Writes the adapter for PEFT and vLLM, with the name by which others know its base model."""

import json
import shutil
from pathlib import Path
from typing import Any

from foci.export.source import Source
from foci.models.loading import is_adapter
from foci.models.locate import folder_of
from foci.models.whole import read_json

CONFIG = "adapter_config.json"


def write_adapter(source: Source, folder: Path) -> dict[str, Any]:
    """Copies the adapter; returns its settings, which then name the base model as others know it.

    Raises ValueError, with the command that writes the merged model, where there is no adapter, and where the base
    model is an adapter itself, which PEFT would leave out.
    """
    check_adapter(source)
    for file in source.folder.adapter.iterdir():
        if file.is_file() and file.name not in ("README.md", ".lock"):
            shutil.copyfile(file, folder / file.name)
    settings = read_json(folder / CONFIG)
    settings["base_model_name_or_path"] = source.base_place()
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
    return settings


def check_adapter(source: Source) -> None:
    """Raises ValueError, with the command that writes the merged model, where there is no adapter that others take."""
    instead = f"write the merged model: {source.command()}"
    if source.run.adapter is None:
        raise ValueError(
            f"the arm {source.arm} of {source.path} trained all weights (adapter: null), so there is no adapter; "
            f"{instead}"
        )
    if not (source.folder.adapter / CONFIG).is_file():
        raise ValueError(f"there is no {CONFIG} in {source.folder.adapter}; {instead}")
    if is_adapter(folder_of(source.run.model.name, trust_remote_code=source.trust)):
        raise ValueError(
            f"the base model {source.run.model.name} is an adapter itself, which PEFT and vLLM would leave out; "
            f"{instead}"
        )
    source.chosen.check_weights(source.folder.adapter)


def check_public_base(source: Source) -> None:
    """Raises ValueError where the base model is a folder or a file: nobody else could load the adapter upon it.

    Its settings name the base model, so they would also tell where the folder lies on this machine.
    """
    base = source.base()
    if not base.on_hub:
        raise ValueError(
            f"--push --adapter: the adapter stands upon {base.name}, a place on this machine, so nobody else could "
            f"load it, and {CONFIG} would tell them the path {source.run.model.name}. Push the merged model: "
            f"{source.command('--push OWNER/NAME')}; or train with the base model's name on the hub as --model"
        )
