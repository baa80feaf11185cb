"""Builds and describes the methods of the folder: their classes, settings and roles."""

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import ModuleType
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from foci.errors import hint, shown
from foci.focus import ROLES, Method, Prepares
from foci.methods._names import modules, require_known


@dataclass(frozen=True)
class Description:
    """A method as `foci methods` describes it.

    `roles` are names of role classes and `decides` their first docstring lines, in the same order.
    `settings` hold each setting's default as code, or "required". `summary` is the first docstring line.
    """

    name: str
    roles: tuple[str, ...]
    decides: tuple[str, ...]
    summary: str
    settings: Mapping[str, str]
    experimental: bool


def available() -> dict[str, type[Method]]:
    """Returns every method's class by name, in alphabetical order. Imports all modules of the folder."""
    return {name: _class_of(importlib.import_module(path)) for name, path in sorted(modules().items())}


def build(spec: str | Mapping[str, Mapping[str, Any] | None]) -> Method:
    """Builds the method of a run file's entry: its name, or {name: {setting: value}}.

    >>> build({"oracle": {"floor": 0.1}})
    Oracle(floor=0.1)

    Raises a ValueError where the name, a setting or its value is wrong, or a setting is missing.
    """
    name, settings = _name_and_settings(spec)
    require_known(name)
    kind = _class_of(importlib.import_module(modules()[name]))
    known_settings = _settings(kind)
    listed = ", ".join(f"{key} = {default}" for key, default in known_settings.items()) or "none"
    for key in settings:
        if key not in known_settings:
            raise ValueError(
                f"method {name!r} has no setting {key!r}; {hint(key, known_settings)} its settings: {listed}"
            )
    if missing := [k for k, default in known_settings.items() if default == "required" and k not in settings]:
        raise ValueError(f"method {name!r} needs {', '.join(missing)}; write {{{name}: {{{missing[0]}: ...}}}}")
    hints = get_type_hints(kind)
    return kind(**{key: _checked(name, key, value, hints[key]) for key, value in settings.items()})


def describe() -> list[Description]:
    """Describes every method, in alphabetical order."""
    places = modules()
    return [
        Description(
            name=name,
            roles=tuple(role.__name__ for role in roles_of(kind)),
            decides=tuple(_first_line(role) for role in roles_of(kind)),
            summary=_first_line(kind),
            settings=_settings(kind),
            experimental=places[name].startswith("foci.methods.experimental."),
        )
        for name, kind in available().items()
    ]


def roles_of(kind: type[Method]) -> tuple[type, ...]:
    """Returns the roles that a method can play in training: its own, or those of the classes that `prepare` returns.

    Raises TypeError where `prepare` does not say in its annotation what it returns.
    """
    playing: tuple[Any, ...] = (kind,)
    if issubclass(kind, Prepares):
        playing = get_args(get_type_hints(kind.prepare).get("return"))[:1]
        playing = get_args(playing[0]) or playing if playing else ()  # a union where it depends on the settings
    roles = tuple(role for role in ROLES for one in playing if inspect.isclass(one) and issubclass(one, role))
    if not roles:
        raise TypeError(
            f"{kind.__name__} plays none of the roles {', '.join(role.__name__ for role in ROLES)}; derive it from "
            'one, or annotate its prepare with "-> tuple[CLASS, Sequence[Row]]", where CLASS derives from one'
        )
    return roles


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
    (kind,) = kinds
    if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:
        raise TypeError(f"{module.__name__}.{kind.__name__} should be a frozen dataclass; add @dataclass(frozen=True)")
    return kind


def _name_and_settings(spec: str | Mapping[str, Mapping[str, Any] | None]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if len(spec) != 1:
        raise ValueError(f"a method is its name or {{name: {{setting: value}}}}, got {shown(dict(spec))}")
    ((name, settings),) = spec.items()
    return name, settings or {}


def _settings(kind: type[Method]) -> dict[str, str]:
    """Returns each setting's default as code, or "required"."""
    return {field.name: _default(field) for field in fields(kind) if field.init}  # type: ignore[arg-type]


def _default(field: "Field[Any]") -> str:
    if field.default_factory is not MISSING:
        return repr(field.default_factory())
    return "required" if field.default is MISSING else repr(field.default)


def _checked(method: str, key: str, value: object, hint_type: Any) -> Any:
    """Returns the value as the setting's type; lists become tuples where asked for, nothing else changes."""
    try:
        return TypeAdapter(hint_type).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        expected = hint_type.__name__ if isinstance(hint_type, type) else str(hint_type).replace("typing.", "")
        raise ValueError(
            f"method {method!r}: setting {key!r} expected {expected}, got {shown(value)} "
            f"({type(value).__name__}); write {{{method}: {{{key}: VALUE}}}} with a value of that type"
        ) from None


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]
