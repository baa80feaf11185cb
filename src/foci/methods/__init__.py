"""The methods foci knows. This folder is the registry: one file, one method, named like the file.

A method is the one public frozen dataclass of its module that derives from a role of `foci.focus`, or from `Prepares`
where it must look at the model or the corpus first; its fields are its settings. What `prepare` returns stands in the
same file. New ideas live in `experimental/` under the same rules. To add a method, add a file.

Importing this package imports no method and no torch, so that a wrong name or setting is refused at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foci.methods._names import modules, outside, place_of
from foci.methods._source import Description, check, describe, description_of, name_and_settings, words_of

if TYPE_CHECKING:
    from foci.methods._registry import available, build, roles_of

__all__ = [
    "Description", "available", "build", "check", "describe", "description_of", "modules", "name_and_settings",
    "outside", "place_of", "roles_of", "words_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports the registry, and with it torch, when one of its names is first used."""
    if name in __all__:
        return getattr(import_module("foci.methods._registry"), name)
    raise AttributeError(f"module 'foci.methods' has no attribute {name!r}; it has {', '.join(__all__)}")
