"""Writes the generated tables: methods in README.md and docs/methods, keys of a run file in docs/your_text.md."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def questions() -> str:
    """Returns the table of what methods decide: each question, and the methods that answer it."""
    from foci.methods import describe

    by_question: dict[str, list[str]] = {}
    for method in describe():
        for words in method.decides:
            link = f"[{method.name}](docs/methods/{method.name}.md)"
            by_question.setdefault(words.removeprefix("Decides ").rstrip("."), []).append(link)
    return "\n".join(
        ["| decides | methods |", "|---|---|", *(f"| {q} | {', '.join(m)} |" for q, m in by_question.items())]
    )


def methods() -> str:
    """Returns the table of methods: name, what it decides and what it does, from the docstrings."""
    from foci.methods import describe

    lines = ["| method | decides | what it does |", "|---|---|---|"]
    for method in describe():
        decides = "; ".join(words.removeprefix("Decides ").rstrip(".") for words in method.decides)
        lines.append(f"| [{method.name}]({method.name}.md) | {decides} | {method.summary} |")
    return "\n".join(lines)


def keys() -> str:
    """Returns the table of the keys of a run file: name, default and meaning, from the settings' descriptions."""
    from foci.config.run import fields

    known = fields()
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in known.items():
        if any(other.startswith(f"{name}.") for other in known):
            continue  # a section; its keys follow
        default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        meaning = (field.description or "").replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(lines)


def _shown(value: object) -> str:
    plain = value is None or (isinstance(value, bool | int | float | str) and value != "")
    return f"`{json.dumps(value)}`".replace('"', "") if plain else ""


PARTS = {
    "README.md": {"methods": questions},
    "docs/methods/index.md": {"methods": methods},
    "docs/your_text.md": {"keys": keys},
}
"""Generated parts of each file, each between `<!-- NAME: made by tools/readme.py -->` and `<!-- /NAME -->`."""


def generated(file: str) -> str:
    """Returns the text of a file with its generated parts made anew."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, make in PARTS[file].items():
        begin, end = f"<!-- {name}: made by tools/readme.py -->", f"<!-- /{name} -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    for name in PARTS:
        (ROOT / name).write_text(generated(name), encoding="utf-8")
