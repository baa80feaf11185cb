"""Reads and writes YAML with the scalars of YAML 1.2, plain data alone, and a line number for every key.

PyYAML reads YAML 1.1, where `1e-3` is text, `no` is false, `010` is 8 and `12:30` is 750; it also lets a key stand
twice and keeps the last. Here `1e-3` is a number, only `true` and `false` are truth values, and a key that stands
twice, or a tag, is refused with its line.

Anchors (`&name`), aliases (`*name`) and merge keys (`<<: *name`) are read as YAML 1.1 defines them: a mapping's own
keys win over those that it merges, and of several merged mappings the first wins. An alias inside the value that it
names is refused, and so are aliases that would make a short file very large.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import yaml

from foci.errors import shown

Place = tuple[str | int, ...]
"""Where a value stands: keys of mappings and numbers (from 0) of list items, from the outside in."""
_Entries = dict[str, tuple[yaml.ScalarNode, yaml.Node]]
"""A mapping's nodes: key and value by the key's text."""

MOST_COPIED = 100_000
"""Values and characters that aliases may repeat in one file, many times more than a run file needs."""

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")
_NULL = re.compile(r"(~|null|Null|NULL|)\Z")


class _Loader(yaml.SafeLoader):
    """Composes nodes without the resolvers of YAML 1.1: `_scalar` decides the type of each scalar."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


def _text(dumper: yaml.representer.BaseRepresenter, text: Any) -> yaml.Node:
    """Writes a next line (U+0085) as an escape; PyYAML would write it as it stands, and reads it as a space then."""
    return dumper.represent_scalar(_TAG + "str", text, style='"' if "\x85" in text else None)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type; writes no aliases."""

    yaml_representers = {**yaml.SafeDumper.yaml_representers, str: _text}  # noqa: RUF012

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (_TAG + "int", _INT),
            (_TAG + "float", _FLOAT),
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *"+-.0123456789"}
    }

    def ignore_aliases(self, data: object) -> bool:
        """Returns True: a value that occurs twice is written twice."""
        return True


def parse(text: str | bytes, source: str) -> tuple[Any, dict[Place, int]]:
    """Returns the value of a YAML text and the line (from 1) where everything in it was written.

    Values are dict (keys are text), list, str, int, float, bool and None. A key has its own line, also where its value
    is an alias; what stands inside an aliased value, or was merged, has the line where it was written.
    Raises ValueError, with `source` and the line, for what is not valid YAML or is refused.
    """
    try:
        root = yaml.compose(_decoded(text, source), Loader=_Loader)
        reader = _Reader(source)
        return (None if root is None else reader.value(root, ())), reader.lines
    except yaml.MarkedYAMLError as error:
        raise ValueError(_syntax(error, source)) from None
    except yaml.reader.ReaderError as error:
        raise ValueError(
            f"{source}: character number {error.position} ({error.character!r}) is not allowed; remove it"
        ) from None
    except RecursionError:
        raise ValueError(f"{source}: nested too deep to be read; a run file has about four levels") from None


def dump(value: Any) -> str:
    """Returns YAML text that `parse` reads back as the same value; mappings keep their order."""
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


class _Reader:
    """Builds plain values from YAML nodes; notes in `lines` where each was written. An aliased value is built anew."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[Place, int] = {}
        self.copied = 0
        self._known: set[int] = set()
        self._open: set[int] = set()
        self._entries: dict[int, _Entries] = {}

    def value(self, node: yaml.Node, place: Place) -> Any:
        """Returns the plain value of a node that stands at `place`. Raises ValueError for what is refused."""
        self.lines.setdefault(place, _line(node))
        self._count(node)
        with self._opened(node):
            if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
                return node.value if node.style else _scalar(node.value)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.value(item, (*place, number)) for number, item in enumerate(node.value)]
            if _is_mapping(node):
                return {key: self._entry(pair, (*place, key)) for key, pair in self.entries(node).items()}
        raise self._refused(node, f"the tag {node.tag!r} is not read here, only plain values are; remove the tag")

    def entries(self, node: yaml.MappingNode) -> "_Entries":
        """Returns a mapping's nodes by key. Merged keys (`<<`) stand where they are merged; own values win."""
        if id(node) in self._entries:
            return self._entries[id(node)]
        found: _Entries = {}
        own: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refused(key, "a key should be text, got a list or mapping; check the brackets")
            if key.value in own:
                raise self._refused(key, f"key {key.value!r} stands twice (first on line {own[key.value]}); keep one")
            own[key.value] = _line(key)
            if key.value == "<<" and not key.style:  # in quotes it is text
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    found = found | {
                        name: pair for name, pair in self._merged(source, key).items() if name not in found
                    }
            else:
                found[key.value] = key, value
        self._entries[id(node)] = found
        return found

    def _merged(self, source: yaml.Node, key: yaml.Node) -> "_Entries":
        if not _is_mapping(source):
            got = shown(source.value) if isinstance(source, yaml.ScalarNode) else "a list"
            raise self._refused(key, f"<< takes a mapping (<<: *name) or a list of mappings, got {got}; name a mapping")
        with self._opened(source):
            return self.entries(source)

    def _entry(self, pair: tuple[yaml.Node, yaml.Node], place: Place) -> Any:
        self.lines[place] = _line(pair[0])
        self._count(pair[0])
        return self.value(pair[1], place)

    def _count(self, node: yaml.Node) -> None:
        """Adds up what aliases repeat, so that a short file cannot grow without bound."""
        if id(node) in self._known:
            self.copied += 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
            if self.copied > MOST_COPIED:
                raise self._refused(
                    node,
                    f"aliases (*name) may repeat {MOST_COPIED:,} values and characters in all, got more; "
                    "use fewer aliases, or aliases of smaller values",
                )
        self._known.add(id(node))

    @contextmanager
    def _opened(self, node: yaml.Node) -> Iterator[None]:
        """Refuses a node inside itself."""
        if id(node) in self._open:
            raise self._refused(node, "this value holds an alias (*name) of itself; remove the alias")
        self._open.add(id(node))
        yield
        self._open.remove(id(node))

    def _refused(self, node: yaml.Node, reason: str) -> ValueError:
        return ValueError(f"{self.source}:{_line(node)}: {reason}")


def _line(node: yaml.Node) -> int:
    """Returns the line, from 1, where a node begins; of an alias, where the value that it names begins."""
    return int(node.start_mark.line) + 1


def _is_mapping(node: yaml.Node) -> TypeGuard[yaml.MappingNode]:
    return isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map"


def _scalar(text: str) -> str | int | float | bool | None:
    """Returns the value of an unquoted scalar by the core schema of YAML 1.2, section 10.3.

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
    if "duplicate anchor" in (error.context or ""):
        return f"{where}: an anchor (&name) stands once in a file, got a second one of this name; rename it"
    if "undefined alias" in problem:
        name = problem.rpartition(" ")[2].strip("'")
        return f"{where}: the alias *{name} needs an anchor before it, got none; write &{name} before the first value"
    cure = "check the indentation, and the brackets, quotes and colons on this line and the one before"
    return f"{where}: not valid YAML ({problem}); {cure}"
