"""Every file in runs/ is a run file of its command, and says nothing twice that an alias could say."""

import re
from pathlib import Path

import pytest

from foci.bench.config import Suite
from foci.config.run import Run, dump_run, load, of_settings
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


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([], ["train.patience=2"]),
        (["train.patience=2"], ["train.patience=null"]),
        (["train.patience=2"], ["train.patience=3"]),
        (["train.steps=4"], ["train.patience=2"]),
        (["train.epochs=5"], ["train.patience=2"]),
        ([], ["train.patience=2", "train.schedule=cosine"]),
    ],
)
def test_patience_means_the_same_for_a_runs_own_file_as_for_texts(first, then):
    """A run's own file has every key; those that patience changes are not taken as if somebody had chosen them."""
    texts = {"corpus": {"path": "pages"}}
    kept = [] if first == ["train.patience=2"] else first
    assert of_settings(of_settings(texts, first).model_dump(mode="json"), then) == of_settings(texts, [*kept, *then])


def test_patience_without_anything_held_out_is_refused_at_once():
    with pytest.raises(ValueError, match="nothing is held out that could say what is best"):
        of_settings(
            {"corpus": {"path": "pages", "held_out_share": 0.0}, "probes": {"learn": "q.jsonl", "held_out_share": 0.0}},
            ["train.patience=2"],
        )
    made = of_settings(
        {"corpus": {"path": "pages", "held_out_share": 0.0}, "probes": {"held_out_share": 0.0}}, ["train.patience=2"]
    )
    assert made.train.patience == 2, "of made probes a fifth is held out whatever the share"
