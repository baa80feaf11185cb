"""Folders that are registries: every module of such a folder defines one class, and the module's name is its name."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


def members(package: str, base: type[T]) -> Mapping[str, T]:
    """Returns one instance of the class that each module of a package defines, by module name, in alphabetical order.

    Each class derives from `base`. Modules whose name begins with _ are left out. The folders of the package's
    `__path__` are searched, so that a test may add one. Raises TypeError where a module defines no such class, or two.
    """
    key: Any = base  # an abstract class is no Hashable to mypy
    return _members(package, key, tuple(importlib.import_module(package).__path__))


@cache
def _members(package: str, base: Any, folders: tuple[str, ...]) -> Mapping[str, Any]:
    names = sorted(module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_"))
    return {name: _class_of(importlib.import_module(f"{package}.{name}"), base)() for name in names}


def _class_of(module: ModuleType, base: type[T]) -> type[T]:
    """Returns the one public class of a module that derives from `base`."""
    found = [
        kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and kind.__module__ == module.__name__
        and issubclass(kind, base)
        and not name.startswith("_")
    ]
    if len(found) != 1:
        raise TypeError(
            f"{module.__name__} should define one public class that derives from {base.__name__}, "
            f"got {[kind.__name__ for kind in found]}; keep one per file, and prefix helpers with _"
        )
    return found[0]
