"""Writes the generated parts of README.md: the file tree and the table of methods. `make readme`; a test compares."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("src/foci", "runs", "benchmarks", "docs", "tests")


def tree() -> str:
    """Every Python module of the package with the first sentence of its docstring."""
    lines = []
    for path in sorted((ROOT / "src/foci").rglob("*.py"), key=lambda p: (len(p.relative_to(ROOT).parts) > 3, str(p))):
        name = str(path.relative_to(ROOT / "src/foci"))
        if name == "__init__.py" or ("methods/" in name and path.name != "__init__.py"):
            continue
        lines.append(f"{name.replace('/__init__.py', '/'):<28} {summary(path)}")
    return "```\nsrc/foci/\n" + "\n".join(f"  {line}".rstrip() for line in lines) + "\n```"


def summary(path: Path) -> str:
    """The first sentence of a module's docstring, cut to a line."""
    text = path.read_text(encoding="utf-8")
    found = re.match(r'"""(.+?)(?:\n\n|""")', text, re.DOTALL)
    words = " ".join(found[1].split()) if found else ""
    first = re.split(r"(?<=[.!?]) ", words)[0]
    return first if len(first) <= 84 else first[:81].rsplit(" ", 1)[0] + " ..."


def methods() -> str:
    """Name, what it decides, first docstring line."""
    from foci.methods import describe

    lines = ["| method | what it decides | in a line |", "|---|---|---|"]
    for method in describe():
        decides = " ".join(method.decides) if not isinstance(method.decides, str) else method.decides
        lines.append(f"| [`{method.name}`](docs/methods/{method.name}.md) | {decides} | {method.summary} |")
    return "\n".join(lines)


def generated(text: str) -> str:
    """The README with its generated parts made anew."""
    for name, make in {"tree": tree, "methods": methods}.items():
        begin, end = f"<!-- {name}: made by tools/readme.py -->", f"<!-- /{name} -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    sys.path.insert(0, str(ROOT / "src"))
    readme.write_text(generated(readme.read_text(encoding="utf-8")), encoding="utf-8")
