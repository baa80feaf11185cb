"""The docs site builds without a warning, loads nothing from elsewhere, and names tests that exist."""

import importlib
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import yaml

from paths import ROOT

DOCS = ROOT / "docs"
WANTED = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers")

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").is_file(), reason="mkdocs.yml is not beside the tests")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Warnings are errors (`strict` in mkdocs.yml); an unused proxy shows that no network is needed."""
    if missing := [name for name in WANTED if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'foci[docs]'")
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert "WARNING" not in made.stderr
    return folder


def test_every_page_is_built(site):
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert len(pages) > 35
    assert pages <= built


def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//", re.IGNORECASE)
    wrong = [str(path.relative_to(site)) for path in site.rglob("*.html") if loads.search(path.read_text())]
    assert not wrong


def test_the_reference_shows_docstrings_and_doctests(site):
    page = (site / "api" / "models.html").read_text()
    assert 'id="foci.models.loading.load"' in page
    assert "&gt;&gt;&gt;" in page
    assert "<blockquote>\n<blockquote>" not in page, "a doctest became a quotation"


def test_parts_of_the_readme_are_on_their_pages(site):
    start = (site / "index.html").read_text()
    assert 'href="results/train_attention.html"' in start
    assert 'src="pictures/learned-retained.svg"' in start
    assert 'href="train_attention.html"' in (site / "results" / "index.html").read_text()
    assert "FocusTrainer(model, args" in re.sub(r"<[^>]+>", "", (site / "python.html").read_text())


@pytest.mark.parametrize("page", ["laws.md", "reliability.md"])
def test_promises_name_tests_that_exist(page):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / page).read_text())
    assert len(named) > 8
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert not missing


def test_pages_name_files_that_exist():
    """Every path of a source file, of a run or of a tool."""
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    source = re.compile(r"`((?:src/foci|tests|tools|runs|benchmarks)/[\w/.]+\.(?:py|yaml|md))`")
    named = [(page.name, name) for page in pages for name in source.findall(page.read_text(encoding="utf-8"))]
    assert len(named) > 20
    assert not [(page, name) for page, name in named if "NAME" not in name and not (ROOT / name).exists()]


def test_the_table_of_moved_modules_names_modules_that_exist():
    table = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("### Where modules are now")[1]
    cells = [
        re.findall(r"`(\.?\w[\w.]*)`", line.split("|")[2]) for line in table.splitlines() if line.startswith("| `")
    ]
    assert len(cells) > 20
    named = [cell[0].rpartition(".")[0] + name if name.startswith(".") else name for cell in cells for name in cell]
    assert not [name for name in named if name.startswith("foci.") and not there_is(name)]


def there_is(name: str) -> bool:
    """Whether a dotted name is a module, or a name of its parent module."""
    parent, _, last = name.rpartition(".")
    if find_spec(parent).submodule_search_locations:
        return find_spec(name) is not None
    return hasattr(importlib.import_module(parent), last)


def test_launch_files_are_what_shell_and_kubernetes_can_read():
    page = (DOCS / "scale.md").read_text()
    (script,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    (objects,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    service, job = yaml.safe_load_all(objects)
    assert [service["kind"], job["kind"]] == ["Service", "Job"]
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    words = [*pod["containers"][0]["command"], *script.split()]
    assert words.count("torchrun") == 2
    assert f"--rdzv-endpoint={job['metadata']['name']}-0.{service['metadata']['name']}:29500" in words
    assert f"--nnodes={job['spec']['completions']}" in words


@pytest.mark.parametrize("stopped", [True, False])
def test_the_slurm_script_queues_itself_again_where_it_was_stopped(tmp_path, stopped):
    """With programs in the places of Slurm's: srun ends by SIGTERM as foci does, and scontrol notes what it is told."""
    (script,) = re.findall(r"```bash\n(.*?)```", (DOCS / "scale.md").read_text(), re.DOTALL)
    run = "trap 'exit 143' TERM; touch running; while true; do sleep 0.02; done" if stopped else "touch running"
    for name, words in {"srun": run, "scontrol": 'echo "$@" >> told'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{words}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NNODES": "2"}
    child = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=environment | {"SLURM_JOB_NODELIST": "a,b"})
    while stopped and not (tmp_path / "running").exists():
        time.sleep(0.01)
    if stopped:
        child.terminate()
    assert child.wait(20) == 0
    assert (tmp_path / "told").read_text().splitlines() == ["show hostnames a,b", *(["requeue 7"] if stopped else [])]
