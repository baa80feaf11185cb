"""Reads from a method's source what it is: settings, roles and words. Imports no method and no torch."""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from foci.errors import hint, shown
from foci.methods._names import Place, place_of, places

_PLAIN = {"float": float, "int": int, "str": str, "bool": bool, "dict": dict, "list": list, "tuple": tuple}
_WORDS = {float: "number", int: "whole number", str: "text", bool: "true | false", NoneType: "null"}


@dataclass(frozen=True)
class Description:
    """A method as `foci methods` describes it.

    `roles` are names of role classes and `decides` their first docstring lines, in the same order. `settings` hold each
    setting's default as code, or "required"; `types` their types, Any where the source does not say. `summary` is the
    first docstring line, `about` the rest of it; `idea` is the module's first docstring line, `papers` the arXiv
    numbers that stand in its docstring.
    """

    name: str
    roles: tuple[str, ...]
    decides: tuple[str, ...]
    summary: str
    settings: Mapping[str, str]
    experimental: bool
    types: Mapping[str, Any]
    about: str
    idea: str
    papers: tuple[str, ...]
    place: Place


def describe() -> list[Description]:
    """Describes every method of foci, in alphabetical order."""
    return [description_of(name) for name in sorted(places())]


def description_of(name: str) -> Description:
    """Describes one method: a name, or a file and a class outside of foci.

    Raises ValueError and FileNotFoundError where there is no such method, or its file holds none.
    """
    place = place_of(name)
    tree = _tree(place.file)
    kind = _class_in(tree, place)
    roles = _roles(tree, kind)
    summary, _, about = (ast.get_docstring(kind) or "").partition("\n")
    words = ast.get_docstring(tree) or ""
    known = _known_roles()
    fields = [node for node in kind.body if isinstance(node, ast.AnnAssign) and _is_setting(node)]
    return Description(
        name=name,
        roles=roles,
        decides=tuple(known[role] for role in roles),
        summary=summary,
        settings={_name(node.target): _default(node, place.file) for node in fields},
        experimental=place.module.startswith("foci.methods.experimental."),
        types={_name(node.target): type_of(node.annotation, place.file) for node in fields},
        about=about.strip(),
        idea=words.partition("\n")[0],
        papers=tuple(dict.fromkeys(re.findall(r"(?:arXiv |\()(\d{4}\.\d{5})", words))),
        place=place,
    )


def check(spec: str | Mapping[str, Mapping[str, Any] | None]) -> None:
    """Raises ValueError for a wrong name or setting of a run file's entry, before the method is imported."""
    name, settings = name_and_settings(spec)
    found = description_of(name)
    if found.place.module:  # a file outside of foci may take settings from a base; they are checked when it is built
        check_settings(name, settings, found.settings)
        for key, value in settings.items():
            checked(name, key, value, found.types[key])


def name_and_settings(spec: str | Mapping[str, Mapping[str, Any] | None]) -> tuple[str, Mapping[str, Any]]:
    """Returns the name and the settings of a run file's entry."""
    if isinstance(spec, str):
        return spec, {}
    if len(spec) != 1:
        raise ValueError(f"a method is its name or {{name: {{setting: value}}}}, got {shown(dict(spec))}")
    ((name, settings),) = spec.items()
    return name, settings or {}


def check_settings(name: str, settings: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Raises ValueError for a setting that a method has not, and where one is missing; `known` are the defaults."""
    listed = ", ".join(f"{key} = {default}" for key, default in known.items()) or "none"
    for key in settings:
        if key not in known:
            raise ValueError(f"method {name!r} has no setting {key!r}; {hint(key, known)} its settings: {listed}")
    if missing := [key for key, default in known.items() if default == "required" and key not in settings]:
        raise ValueError(f"method {name!r} needs {', '.join(missing)}; write {{{name}: {{{missing[0]}: ...}}}}")


def checked(method: str, key: str, value: object, kind: Any) -> Any:
    """Returns the value as the setting's type; lists become tuples where asked for, nothing else changes.

    Raises ValueError for a value of another type.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        expected = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        raise ValueError(
            f"method {method!r}: setting {key!r} expected {expected}, got {shown(value)} "
            f"({type(value).__name__}); write {{{method}: {{{key}: VALUE}}}} with a value of that type"
        ) from None


def words_of(kind: Any) -> str:
    """Says in words which values a type takes.

    >>> words_of(Literal["all", "linear"]), words_of(tuple[str, ...] | None)
    ('all | linear', '[text, ...] or null')
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(str(arg) for arg in args)
    if origin in (Union, UnionType):
        return " or ".join(words_of(arg) for arg in args)
    if origin in (list, tuple):
        return f"[{words_of(args[0])}, ...]"
    return "mapping" if origin is dict else _WORDS.get(kind, "any value")


def type_of(node: ast.expr, file: Path) -> Any:
    """Returns the type that an annotation names, with the aliases of foci's modules; Any where that cannot be told."""
    if isinstance(node, ast.Constant):
        return None if node.value is None else type_of(ast.parse(str(node.value), mode="eval").body, file)
    if isinstance(node, ast.BinOp):
        return Union[type_of(node.left, file), type_of(node.right, file)]  # noqa: UP007 - of values, not of names
    if isinstance(node, ast.Subscript):
        return _generic(node, file)
    if isinstance(node, ast.Name) and node.id in _PLAIN:
        return _PLAIN[node.id]
    meant, there = _meaning(node, file)
    return Any if meant is None else type_of(meant, there)


def _generic(node: ast.Subscript, file: Path) -> Any:
    """Returns the type of `Literal[...]`, `tuple[...]`, `list[...]` or `dict[...]`; Any for another one."""
    name = ast.unparse(node.value).rpartition(".")[2]
    if name == "Literal":
        values = ast.literal_eval(node.slice)
        return Literal[values]  # type: ignore[valid-type]
    if name not in ("tuple", "list", "dict"):
        return Any
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return _PLAIN[name][tuple(... if _is_dots(part) else type_of(part, file) for part in parts)]  # type: ignore[index]


def _tree(file: Path) -> ast.Module:
    """Returns the source of a file as a tree. Raises ValueError where it is not Python."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else "not UTF-8"
        raise ValueError(
            f"{file}{line}: expected Python with a method's class, got {reason}; correct the file"
        ) from None


def _known_roles() -> dict[str, str]:
    """Returns every role's name and the first line of its docstring, in the order of `foci.focus`."""
    tree = _tree(_root() / "focus.py")
    kinds = {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}
    (roles,) = (n.value for n in tree.body if isinstance(n, ast.Assign) and _name(n.targets[0]) == "ROLES")
    return {name: kinds[name].partition("\n")[0] for name in (_name(e) for e in roles.elts)}  # type: ignore[attr-defined]


def _root() -> Path:
    return Path(import_module("foci").__path__[0])


def _class_in(tree: ast.Module, place: Place) -> ast.ClassDef:
    """Returns the class of a method. Raises ValueError, with the cure, where the file has none or several."""
    public = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")}
    if place.kind:
        if place.kind not in public:
            raise ValueError(f"{place.file} defines no class {place.kind!r}; {hint(place.kind, public)}")
        return public[place.kind]
    roles = _known_roles()
    preparing = [kind for kind in public.values() if "Prepares" in _bases(kind)]
    kinds = preparing or [kind for kind in public.values() if roles.keys() & _bases(kind)]
    if len(kinds) != 1:
        names = [kind.name for kind in kinds]
        cure = f"name one of them: {place.file}:{names[0]}" if names else "derive it from a role (see foci.focus)"
        raise ValueError(f"{place.file} should define one public class of a method, got {names or 'none'}; {cure}")
    return kinds[0]


def _roles(tree: ast.Module, kind: ast.ClassDef) -> tuple[str, ...]:
    """Returns the roles of a class: its own, or those of the classes that its `prepare` says it returns."""
    playing = [kind]
    if "Prepares" in _bases(kind):
        prepare = next((n for n in kind.body if isinstance(n, ast.FunctionDef) and n.name == "prepare"), None)
        returned = ast.unparse(prepare.returns) if prepare and prepare.returns else ""
        names = re.findall(r"\w+", (re.search(r"tuple\[['\"]?([^,'\"]+)", returned) or ["", ""])[1])
        kinds = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for there in filter(None, (_imported(tree, name) for name in names)):  # classes of other modules of foci
            kinds += [node for node in _tree(there).body if isinstance(node, ast.ClassDef)]
        playing = [node for node in kinds if node.name in names]
    return tuple(role for role in _known_roles() if any(role in _bases(node) for node in playing))


def _bases(kind: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rpartition(".")[2] for base in kind.bases}


def _is_setting(node: ast.AnnAssign) -> bool:
    hidden = isinstance(node.value, ast.Call) and any(
        word.arg == "init" and ast.unparse(word.value) == "False" for word in node.value.keywords
    )
    return isinstance(node.target, ast.Name) and not hidden and "ClassVar" not in ast.unparse(node.annotation)


def _default(node: ast.AnnAssign, file: Path) -> str:
    """Returns a setting's default as code, or "required"."""
    value = node.value
    if isinstance(value, ast.Call) and _name(value.func) == "field":
        given = {word.arg: word.value for word in value.keywords}
        if "default_factory" in given:
            return f"{ast.unparse(given['default_factory'])}()"
        value = given.get("default")
    if value is None:
        return "required"
    meant, _ = _meaning(value, file)
    try:
        return repr(ast.literal_eval(value if meant is None else meant))
    except ValueError:
        return ast.unparse(value)


def _meaning(node: ast.expr, file: Path) -> tuple[ast.expr | None, Path]:
    """Returns the expression that a name stands for, in its file or in a module of foci, and the file it stands in."""
    tree = _tree(file)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        there = _imported(tree, node.value.id)
        return _meaning(ast.Name(node.attr), there) if there else (None, file)
    if not isinstance(node, ast.Name):
        return None, file
    for line in tree.body:
        if isinstance(line, ast.Assign) and _name(line.targets[0]) == node.id:
            return line.value, file
    there = _imported(tree, node.id)
    return _meaning(node, there) if there and there != file else (None, file)


def _imported(tree: ast.Module, name: str) -> Path | None:
    """Returns the file of foci from which `name` is imported, or which is imported as `name`."""
    for line in tree.body:
        if isinstance(line, ast.ImportFrom) and (line.module or "").startswith("foci"):
            for alias in line.names:
                if name == (alias.asname or alias.name):
                    parts = (line.module or "").split(".")[1:]
                    return _file(*parts, alias.name) or _file(*parts)
    return None


def _file(*parts: str) -> Path | None:
    base = _root().joinpath(*parts)
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _name(node: ast.expr) -> str:
    return ast.unparse(node)


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
