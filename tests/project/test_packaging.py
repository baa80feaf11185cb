"""What pyproject.toml declares is what the code imports, and the packages that it builds hold everything."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from importlib.util import find_spec

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from paths import ROOT

if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("pyproject.toml is not beside the tests", allow_module_level=True)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {
    extra: {canonicalize_name(r.name): r for r in map(Requirement, listed)}
    for extra, listed in PROJECT["optional-dependencies"].items()
}
HARNESS = {"packaging"}
"""Imported by tests and not declared: pytest brings it."""

RENAMED = {"griffe": "griffelib", "pptx": "python-pptx", "docx": "python-docx"}
"""Distributions that have another name than what is imported, where they need not be installed."""


def imported(folder: str) -> dict[str, str]:
    """Distributions that the Python files of a folder import, also by `import_module("NAME")`, with one place each."""
    there = packages_distributions()  # two packages bring a module gguf
    known = {name: name if name in listed else listed[0] for name, listed in there.items()}
    own = {path.stem for path in ROOT.rglob("tests/**/*.py")} | {"foci", "benchmarks"}
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in names(node):
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names | own and not top.startswith("test_"):
                    distribution = canonicalize_name(known.get(top, RENAMED.get(top, top)))
                    found[distribution] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def names(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module")):
            given = node.args[0]
            return [given.value] if isinstance(given, ast.Constant) else []
    return []


def lowest(requirement: Requirement) -> Version:
    (bound,) = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    return bound


def pins(file: str) -> dict[str, Version]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_what_is_declared_is_what_is_imported():
    found = imported("src")
    optional = {*EXTRAS["chat"], *EXTRAS["documents"], *EXTRAS["hub"], *EXTRAS["study"], *EXTRAS["lm-eval"]}
    optional.add("cyllama")  # of the extra export, whose converter runs in a process of its own
    undeclared = {name: place for name, place in found.items() if name not in {*CORE, *optional}}
    assert not undeclared, "declare these in pyproject.toml"
    assert set(CORE) <= set(found), "declared and not imported"
    assert optional <= set(found), "an extra that nothing imports"


@pytest.mark.parametrize("folder", ["tests", "tools", "benchmarks"])
def test_what_developers_run_is_declared(folder):
    declared = {*CORE, *HARNESS}.union(*EXTRAS.values())
    assert not {name: place for name, place in imported(folder).items() if name not in declared}


def test_a_missing_import_is_seen(tmp_path, monkeypatch):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "some.py").write_text('import json\nimport requests\nimportlib.import_module("lxml.etree")\n')
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert imported("src") == {"requests": "src/some.py:2", "lxml": "src/some.py:3"}


def test_dev_holds_the_other_extras():
    own = next(Requirement(line) for line in PROJECT["optional-dependencies"]["dev"] if line.startswith("foci["))
    assert own.extras == set(EXTRAS) - {"dev"}


def test_lower_bounds_are_those_that_were_run():
    bounds = {name: lowest(requirement) for name, requirement in {**CORE, **EXTRAS["test"]}.items()}
    assert bounds == pins("constraints-lowest.txt")


def test_what_make_installs_is_in_the_declared_ranges():
    """Every declared package has a pin in constraints.txt that its requirement allows."""
    installed = pins("constraints.txt")
    for requirement in [*CORE.values(), *(r for extra in EXTRAS.values() for r in extra.values() if r.name != "foci")]:
        assert installed[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_version_stands_once():
    found = subprocess.run([sys.executable, "-m", "foci", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"foci {PROJECT['version']}\n"
    version = re.escape(PROJECT["version"])
    written = re.compile(rf"__version__\s*=|[\"']{version}[\"']")
    again = [path for path in (ROOT / "src").rglob("*.py") if written.search(path.read_text(encoding="utf-8"))]
    assert not again


def test_help_needs_no_torch():
    heavy = ("torch", "transformers", "matplotlib", "scipy")
    run = (
        "import sys, typer.testing, foci.cli.main as main\n"
        "assert typer.testing.CliRunner().invoke(main.app, ['--help']).exit_code == 0\n"
        f"sys.exit(str([name for name in {heavy} if name in sys.modules] or '') or 0)"
    )
    subprocess.run([sys.executable, "-c", run], check=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The files of the built sdist and wheel, as paths in the repository."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install 'foci[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    return inside, {f"src/{name}" for name in zipfile.ZipFile(wheel).namelist()}


def files(*folders: str) -> set[str]:
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return {str(p.relative_to(ROOT)) for p in paths if p.is_file() and "__pycache__" not in p.parts}


def test_the_wheel_holds_the_package_and_its_data(built):
    _, wheel = built
    ours = files("src/foci")
    assert {path for path in wheel if ".dist-info/" not in path} == ours
    kinds = {path.rpartition(".")[2] for path in ours}
    assert {"py", "typed", "json", "jsonl", "j2", "css", "js", "md", "safetensors"} <= kinds


def test_the_sdist_holds_what_its_tests_and_make_read(built):
    sdist, _ = built
    single = {"pyproject.toml", "Makefile", "constraints.txt", "constraints-lowest.txt", "mkdocs.yml", "README.md"}
    assert files("src/foci", "tests", "tools", "runs", "docs", "benchmarks") | single <= sdist
