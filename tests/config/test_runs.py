"""Every file in runs/ is a run file of its command, and says nothing twice that an alias could say."""

import re
from pathlib import Path

import pytest

from foci.bench.config import Suite
from foci.config.run import Run, dump_run, load
from foci.meta.config import MetaRun
from foci.pretrain.config import Pretraining
from paths import ROOT

FILES = sorted((ROOT / "runs").glob("*.yaml"))
KINDS = {"learn": Run, "bench": Suite, "meta": MetaRun, "pretrain": Pretraining}


def kind_of(text: str) -> type:
    """The kind of run that a file's comment gives to a command: `foci bench runs/x.yaml`; without one, a plain run."""
    commands = re.findall(r"^#\s+foci (learn|bench|meta|pretrain) runs/", text, re.MULTILINE)
    return KINDS[commands[-1] if commands else "learn"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_run_file_loads_and_its_resolved_form_is_the_same_run(path: Path, tmp_path: Path):
    kind = kind_of(path.read_text())
    run = load(path, (), kind)
    resolved = tmp_path / "run.yaml"
    resolved.write_text(dump_run(run))
    assert not re.search(r"[&*]\w+|<<", resolved.read_text()), "a resolved run has no aliases"
    assert load(resolved, (), kind) == run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_run_file_writes_no_block_of_settings_twice(path: Path):
    blocks = re.findall(r"\{[^{}]*, [^{}]*, [^{}]*\}", path.read_text())
    assert len(blocks) == len(set(blocks)), "name the first by an anchor (&name), write an alias (*name) for the others"


def test_all_kinds_of_runs_are_there():
    assert len(FILES) >= 18
    assert {kind_of(path.read_text()) for path in FILES} == set(KINDS.values())


def test_suites_of_soft_targets_compare_at_equal_learning():
    names = {"biographies_to_the_end", "by_surprise"} | {path.stem for path in FILES if "soft_targets" in path.stem}
    assert len(names) >= 5
    for name in names:
        suite = load(ROOT / "runs" / f"{name}.yaml", (), Suite)
        assert suite.slide is not None, name
        assert suite.baseline == "plain", name
