"""The names of the methods, read from the folder without an import, so that a wrong name is refused at once."""

import pkgutil
from importlib import import_module
from pathlib import Path

from foci.errors import hint

PACKAGE = "foci.methods"


def modules() -> dict[str, str]:
    """Returns the dotted module path of every method by its name. Imports none of them.

    Raises TypeError where two methods have one name.
    """
    paths = import_module(PACKAGE).__path__  # a test may add a folder
    shelves = {
        PACKAGE: list(paths),
        f"{PACKAGE}.experimental": [str(Path(path) / "experimental") for path in paths],
    }
    found: dict[str, str] = {}
    for package, folders in shelves.items():
        for module in pkgutil.iter_modules(folders):
            paper = module.ispkg and any((Path(folder) / module.name / "method.py").is_file() for folder in folders)
            if module.name.startswith("_") or (module.ispkg and not paper):
                continue
            if module.name in found:
                raise TypeError(
                    f"two methods are named {module.name!r}: {found[module.name]} and "
                    f"{package}.{module.name}; rename one"
                )
            found[module.name] = f"{package}.{module.name}{'.method' if paper else ''}"
    return found


def require_known(name: str) -> None:
    """Raises ValueError, with the nearest right name, where no method has this name. Imports no method."""
    known = modules()
    if name not in known:
        cure = hint(name, known)
        names = "" if cure.startswith("known") else f" known: {', '.join(sorted(known))}"
        raise ValueError(f"unknown method {name!r}; {cure}{names}; `foci methods` describes them")
