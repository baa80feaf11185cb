"""Prints what the methods are: all of them in a list, or one with its settings and an example."""

import ast
import textwrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from foci.config.strict_yaml import dump
from foci.methods import Description, describe, description_of, words_of


def print_methods(console: Console) -> None:
    """Prints every method: the decision that it makes, what it does, and its settings."""
    for method in describe():
        shelf = " (experimental)" if method.experimental else ""
        console.print(Text.assemble((method.name, "bold"), f"{shelf}  {' '.join(method.decides)}"))
        settings = ", ".join(f"{key} {_yaml(value)}" for key, value in method.settings.items())
        for words in (method.summary, f"settings: {settings or 'none'}"):
            console.print(_indented(words, console), highlight=False, markup=False)
    console.print("\nfoci methods NAME shows one of them: what its settings mean, and how a run file names it.")


def print_method(name: str, console: Console) -> None:
    """Prints one method. Raises ValueError where there is none of this name."""
    method = description_of(name)
    shelf = " (experimental)" if method.experimental else ""
    console.print(Text.assemble((method.name, "bold"), f"{shelf}  {' '.join(method.decides)}\n"))
    for words in (method.summary, " ".join(method.about.split())):
        if words:
            console.print(_indented(words, console), highlight=False, markup=False)
            console.print()
    if method.settings:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head in ("  setting", "default", "values"):
            table.add_column(head, overflow="fold", no_wrap=head != "values")
        for key, default in method.settings.items():
            table.add_row(f"  {key}", _yaml(default), Text(words_of(method.types[key])))
        console.print(table, highlight=False)
        console.print()
    papers = ", ".join(f"arXiv {paper}" for paper in method.papers) or "no paper"
    page = f"; docs/methods/{name}.md" if method.place.module else ""
    console.print(_indented(f"source: {papers}; code {_code(method)}{page}", console), highlight=False, markup=False)
    console.print(f"\n  in a run file:\n{textwrap.indent(_example(method), '    ')}", highlight=False, markup=False)


def _code(method: Description) -> str:
    """Returns the place of a method's code: its module, or its file."""
    return method.place.module or str(method.place.file)


def _example(method: Description) -> str:
    """Returns the section of a run file that compares plain fine-tuning with the method in its default settings."""
    arm = method.place.kind.lower() or method.name
    settings = {
        key: f"YOUR_{key.upper()}" if default == "required" else _value(default)
        for key, default in method.settings.items()
        if default != "None"
    }
    lines = ["arms:", "  plain: []", f"  {arm}:", f"    - {method.name}:" if settings else f"    - {method.name}"]
    lines += [f"        {line}" for line in dump(settings).splitlines()] if settings else []
    return "\n".join(lines)


def _value(default: str) -> object:
    """Returns a default as a YAML value: tuples are lists; code that is no literal stays as it is."""
    try:
        value = ast.literal_eval(default)
    except ValueError:
        return default
    return list(value) if isinstance(value, tuple) else value


def _yaml(default: str) -> str:
    """Returns a default as a run file writes it.

    >>> _yaml("None"), _yaml("'all'"), _yaml("(',', '.')"), _yaml("required")
    ('null', 'all', "[',', .]", 'required')
    """
    if default == "required":
        return default
    value = _value(default)
    if isinstance(value, list):
        return f"[{', '.join(_yaml(repr(item)) for item in value)}]"
    return dump(value).removesuffix("...\n").strip()


def _indented(words: str, console: Console) -> str:
    """Returns words broken to the console's width, each line two spaces in."""
    width = min(console.width, 100)
    return textwrap.fill(words, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
