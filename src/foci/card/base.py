"""Names a run's base model as others know it, with its licence. Nothing is downloaded."""

from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from huggingface_hub import metadata_load, try_to_load_from_cache

from foci.config.values import meant_as_path
from foci.models.gguf import EMBEDDED


@dataclass(frozen=True)
class Base:
    """The model that a run began with.

    `name` is that on the hub, or the name of a folder or file; `on_hub` says which. `licence` is its identifier, ""
    where nothing here says it. `note` is a sentence where the weights of that name are not those of the run; else "".
    """

    name: str
    on_hub: bool
    licence: str = ""
    note: str = ""
    bits: int | None = None
    """In how many bits its linear layers were stored while the adapter learned; None: as in the files."""


def base_named(name: str, bits: int | None = None) -> Base:
    """Returns what is known of a model by its name and bits in a run file."""
    found = _named(name)
    if bits is None:
        return found
    few = f"The run was trained on its linear layers in {bits} bits; on the unquantised weights answers may differ."
    if bits == 8:
        few += (
            " Transformers also rounds what flows into these layers, and foci does not, so they may differ there too."
        )
    return replace(found, bits=bits, note=f"{found.note} {few}".strip())


def _named(name: str) -> Base:
    if name in EMBEDDED:
        known = EMBEDDED[name]
        note = (
            f"The run was trained on the weights of the package {known.requirement}, a quantised copy of {known.hub}. "
            f"Upon {known.hub} itself an adapter's answers may differ; that was not measured."
        )
        return Base(known.hub, True, known.licence, note)
    path = Path(name).expanduser()
    if path.exists() or meant_as_path(name):
        kind = "file" if path.suffix == ".gguf" else "folder"
        note = f"The base model was the {kind} {path.name} of the machine of the run."
        return Base(path.name, False, _licence_in(path / "README.md"), note)
    card = try_to_load_from_cache(name, "README.md")
    return Base(name, True, _licence_in(Path(card)) if isinstance(card, str) else "")


def _licence_in(card: Path) -> str:
    """Returns the licence that a model card states; "" where there is none, or no card that can be read."""
    if not card.is_file():
        return ""
    try:
        stated = (metadata_load(card) or {}).get("license")
    except (ValueError, OSError, yaml.YAMLError):
        return ""
    return stated if isinstance(stated, str) else ""
