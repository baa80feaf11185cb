"""The names of the methods, read from the folder without an import, so that a wrong name is refused at once."""

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from foci.config.values import METHOD_FILE
from foci.errors import hint, shown
from foci.system.files import existing

PACKAGE = "foci.methods"


class Place(NamedTuple):
    """Where a method's class is: the dotted path of its module, "" outside of foci, its file, and the class' name.

    `kind` "" is the one public class of the file that plays a role or prepares.
    """

    module: str
    file: Path
    kind: str = ""


def modules() -> dict[str, str]:
    """Returns the dotted module path of every method of foci by its name; raises as `places` does."""
    return {name: place.module for name, place in places().items()}


def places() -> dict[str, Place]:
    """Returns the place of every method of foci by its name. Imports none of them.

    Raises TypeError where two methods have one name.
    """
    paths = import_module(PACKAGE).__path__  # a test may add a folder
    shelves = {
        PACKAGE: list(paths),
        f"{PACKAGE}.experimental": [str(Path(path) / "experimental") for path in paths],
    }
    found: dict[str, Place] = {}
    for package, folders in shelves.items():
        for module in pkgutil.iter_modules(folders):
            end = f"{module.name}/method.py" if module.ispkg else f"{module.name}.py"
            file = next((file for folder in folders if (file := Path(folder) / end).is_file()), None)
            if module.name.startswith("_") or file is None:
                continue
            if module.name in found:
                raise TypeError(
                    f"two methods are named {module.name!r}: {found[module.name].module} and "
                    f"{package}.{module.name}; rename one"
                )
            found[module.name] = Place(f"{package}.{module.name}{'.method' if module.ispkg else ''}", file)
    return found


def outside(name: str) -> Place | None:
    """Returns the place of a method that is named by a file, `mine.py:Mine`; None for a plain name.

    >>> outside("./mine.py:Mine"), outside("oracle")
    (Place(module='', file=PosixPath('mine.py'), kind='Mine'), None)
    """
    found = METHOD_FILE.fullmatch(name)
    return Place("", Path(found["file"]).expanduser(), found["kind"] or "") if found else None


def place_of(name: str) -> Place:
    """Returns the place of a method.

    Raises ValueError, with the nearest right name, where no method has this name, and FileNotFoundError where it names
    a file that is not there. Imports no method.
    """
    if (place := outside(name)) is not None:
        existing(place.file, "method file", "write the path of a Python file and a class: ./mine.py:Mine")
        return place
    known = places()
    if name not in known:
        cure = hint(name, known)
        names = "" if cure.startswith("known") else f" known: {', '.join(sorted(known))}"
        raise ValueError(
            f"unknown method {shown(name)}; {cure}{names}; `foci methods` describes them, ./FILE.py:CLASS is one of "
            "your own"
        )
    return known[name]
