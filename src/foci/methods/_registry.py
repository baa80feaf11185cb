"""Builds the methods of a run file: their classes, from the folder or from a file outside of foci."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import ModuleType
from typing import Any, get_args, get_type_hints

from foci.errors import hint
from foci.focus import ROLES, Method, Prepares
from foci.methods._names import Place, modules, place_of
from foci.methods._source import check_settings, checked, name_and_settings


def available() -> dict[str, type[Method]]:
    """Returns every method's class by name, in alphabetical order. Imports all modules of the folder."""
    return {name: _class_of(importlib.import_module(path)) for name, path in sorted(modules().items())}


def build(spec: str | Mapping[str, Mapping[str, Any] | None]) -> Method:
    """Builds the method of a run file's entry: its name, or {name: {setting: value}}.

    A name of the form `mine.py:Mine` is a class in a Python file outside of foci.

    >>> build({"oracle": {"floor": 0.1}})
    Oracle(floor=0.1)

    Raises a ValueError where the name, a setting or its value is wrong, or a setting is missing.
    """
    name, settings = name_and_settings(spec)
    place = place_of(name)
    kind = _class_of(importlib.import_module(place.module)) if place.module else _class_outside(place)
    check_settings(name, settings, settings_of(kind))
    hints = get_type_hints(kind)
    return kind(**{key: checked(name, key, value, hints[key]) for key, value in settings.items()})


def roles_of(kind: type[Method]) -> tuple[type, ...]:
    """Returns the roles that a method can play in training: its own, or those of the classes that `prepare` returns.

    Raises TypeError where `prepare` does not say in its annotation what it returns.
    """
    playing: tuple[Any, ...] = (kind,)
    if issubclass(kind, Prepares):
        playing = get_args(get_type_hints(kind.prepare).get("return"))[:1]
        playing = get_args(playing[0]) or playing if playing else ()  # a union where it depends on the settings
    classes = [one for one in playing if inspect.isclass(one)]
    roles = tuple(role for role in ROLES if any(issubclass(one, role) for one in classes))
    if not roles:
        raise TypeError(
            f"{kind.__name__} plays none of the roles {', '.join(role.__name__ for role in ROLES)}; derive it from "
            'one, or annotate its prepare with "-> tuple[CLASS, Sequence[Row]]", where CLASS derives from one'
        )
    return roles


def settings_of(kind: type[Method]) -> dict[str, str]:
    """Returns each setting's default as code, or "required"."""
    return {field.name: _default(field) for field in fields(kind) if field.init}  # type: ignore[arg-type]


def _class_of(module: ModuleType) -> type[Method]:
    """Returns the module's one public frozen dataclass that prepares, or, where none does, that plays a role."""
    own = [
        kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and not name.startswith("_")
    ]
    preparing: list[type[Method]] = [kind for kind in own if issubclass(kind, Prepares)]
    kinds = preparing or [kind for kind in own if issubclass(kind, ROLES)]
    if len(kinds) != 1:
        raise TypeError(
            f"{module.__name__} should define one public class that prepares or plays a role, "
            f"got {[kind.__name__ for kind in kinds]}; keep one method per file, and prefix helpers with _"
        )
    return _frozen(kinds[0], module.__name__)


def _class_outside(place: Place) -> type[Method]:
    """Returns the class of a file outside of foci. Raises ValueError, with the cure, where it is no method."""
    module = _module_of(place)
    try:
        if not place.kind:
            return _class_of(module)
        kind = getattr(module, place.kind, None)
        if kind is None:
            known = [name for name, value in vars(module).items() if inspect.isclass(value)]
            raise ValueError(f"{place.file} defines no class {place.kind!r}; {hint(place.kind, known)}")
        if not inspect.isclass(kind) or not issubclass(kind, (Prepares, *ROLES)):
            raise ValueError(
                f"{place.file}: {place.kind} is no method; derive it from a role of foci.focus "
                f"({', '.join(role.__name__ for role in ROLES)}) or from Prepares"
            )
        return _frozen(kind, str(place.file))
    except TypeError as error:
        raise ValueError(str(error).replace(module.__name__, str(place.file))) from None


def _module_of(place: Place) -> ModuleType:
    """Imports a file outside of foci, once for each content of it. Raises ValueError where its code raises."""
    path = place.file.resolve()
    name = f"foci_method_{hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in inspect.getinnerframes(error.__traceback__) if frame.filename == str(path)]  # type: ignore[arg-type]
        where = f":{lines[-1]}" if lines else f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ValueError(
            f"{place.file}{where}: the method's file could not be imported ({type(error).__name__}: {error}); "
            "correct the file"
        ) from error
    return module


def _frozen(kind: type[Method], where: str) -> type[Method]:
    """Returns the class. Raises TypeError where it is no frozen dataclass."""
    if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:
        raise TypeError(f"{where}.{kind.__name__} should be a frozen dataclass; add @dataclass(frozen=True)")
    return kind


def _default(field: "Field[Any]") -> str:
    if field.default_factory is not MISSING:
        return repr(field.default_factory())
    return "required" if field.default is MISSING else repr(field.default)
