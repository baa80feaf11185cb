"""YAML as people mean it: the scalars of YAML 1.2, plain data only, and a line number for every key.

PyYAML reads YAML 1.1, where `1e-3` is text, `no` is false, `010` is 8 and `12:30` is 750; it also lets a
key stand twice and keeps the last. Here `1e-3` is a number, only `true` and `false` are truth values, and a
key that stands twice, an alias, or a tag is refused with its line.
"""

import re
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""Where a value stands: keys of mappings and numbers (from 0) of list items, from the outside in."""

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")
_NULL = re.compile(r"(~|null|Null|NULL|)\Z")


class _Loader(yaml.SafeLoader):
    """Composes nodes; scalars are told apart by `_scalar`, so no resolver of YAML 1.1 has a say."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes any text that YAML 1.1 or 1.2 would take for something else; never writes an alias."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (_TAG + "int", _INT),
            (_TAG + "float", _FLOAT),
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *"+-.0123456789"}
    }

    def ignore_aliases(self, data: object) -> bool:
        """True: a value that occurs twice is written twice."""
        return True


def parse(text: str | bytes, source: str) -> tuple[Any, dict[Place, int]]:
    """The value of a YAML text and the line (from 1) of everything in it; `source` names it in errors.

    Values are dict (keys are text), list, str, int, float, bool and None.
    """
    try:
        root = yaml.compose(_decoded(text, source), Loader=_Loader)
        lines: dict[Place, int] = {}
        return (None if root is None else _value(root, (), lines, source, set())), lines
    except yaml.MarkedYAMLError as error:
        raise ValueError(_syntax(error, source)) from None
    except yaml.reader.ReaderError as error:
        raise ValueError(
            f"{source}: character number {error.position} ({error.character!r}) is not allowed; remove it"
        ) from None
    except RecursionError:
        raise ValueError(f"{source}: nested too deep to be read; a run file has about four levels") from None


def dump(value: Any) -> str:
    """YAML text that `parse` reads back as the same value; mappings keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _decoded(text: str | bytes, source: str) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{source}:{line}: expected UTF-8, got byte 0x{text[error.start]:02x}; save the file as UTF-8"
        ) from None


def _value(node: yaml.Node, path: Place, lines: dict[Place, int], source: str, seen: set[int]) -> Any:
    """The plain value of a node; notes the line of everything below it."""
    here = f"{source}:{node.start_mark.line + 1}"
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        raise ValueError(f"{here}: an alias (*name) of this value is not read; write it out a second time")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, lines, source, seen)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item, (*path, i), lines, source, seen) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
        return node.value if node.style else _scalar(node.value)
    raise ValueError(f"{here}: the tag {node.tag!r} is not read here, only plain values are; remove the tag")


def _mapping(
    node: yaml.MappingNode, path: Place, lines: dict[Place, int], source: str, seen: set[int]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ValueError(f"{source}:{line}: a key should be text, got a list or mapping; check the brackets")  # noqa: TRY004
        key = key_node.value
        if key in found:
            first = lines[(*path, key)]
            raise ValueError(f"{source}:{line}: key {key!r} stands twice (first on line {first}); keep one")
        lines[(*path, key)] = line
        found[key] = _value(value_node, (*path, key), lines, source, seen)
    return found


def _scalar(text: str) -> str | int | float | bool | None:
    """An unquoted scalar by the core schema of YAML 1.2, section 10.3.

    >>> [_scalar(t) for t in ("1e-3", "010", "0x10", "no", "true", "~", "12:30")]
    [0.001, 10, 16, 'no', True, None, '12:30']
    """
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.match(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _syntax(error: yaml.MarkedYAMLError, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{source}:{mark.line + 1}" if mark else source
    problem = error.problem or error.context or "unreadable"
    if "\\t" in problem:
        return f"{where}: YAML is indented with spaces, got a tab; replace the tab by spaces"
    if "single document" in (error.context or ""):
        return f"{where}: expected one document, got a second one (after '---'); keep one per file"
    cure = "check the indentation, and the brackets, quotes and colons on this line and the one before"
    return f"{where}: not valid YAML ({problem}); {cure}"
