"""tools/weighers.py: the figures by which weighers are compared, by hand."""

import importlib.util
import json

import pytest
import torch

from foci.data import pages
from foci.meta.config import load_meta
from foci.methods.train_attention.weigher import weigher_path
from paths import ROOT


@pytest.fixture(scope="module")
def weighers():
    path = ROOT / "tools" / "weighers.py"
    if not path.is_file():
        pytest.skip("tools/ is not beside the tests")
    spec = importlib.util.spec_from_file_location("tools_weighers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_of_one_document_by_hand(weighers):
    """Four tokens count: weights .5, .1, .5, .3; the answer is the second of them, then the first and last."""
    weights = torch.tensor([1.0, 0.5, 0.1, 0.5, 0.3])
    total = 0.25 + 0.01 + 0.25 + 0.09
    assert weighers.figures(weights, torch.tensor([1.0, 0, 1, 0, 0])) == pytest.approx([0, 0, 0.01 / total, 0.25])
    top, order, share, tokens = weighers.figures(weights, torch.tensor([0.0, 1, 0, 0, 1]))
    assert top in (0, 1)
    assert order == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert (share, tokens) == pytest.approx((0.34 / total, 0.5))


def test_the_texts_are_of_kinds_that_no_weigher_of_a_run_file_learned_from(weighers, tmp_path):
    run = load_meta(ROOT / "runs" / "more_kinds_weigher.yaml")
    assert set(weighers.UNSEEN) == set(run.pairs.held_out_kinds) < set(pages.read_source()["kinds"])
    assert weighers.SEED != 0, "the seed of the pairs"
    made = weighers.texts(tmp_path, 6)
    assert list(made) == [*weighers.UNSEEN, "encyclopedia", "biographies"]
    for file in made.values():
        lines = file.read_text(encoding="utf-8").splitlines()
        assert len(lines) >= 6
        assert all("answer_spans" in line for line in lines)


def test_the_weigher_that_comes_with_foci_is_small_and_of_its_run_file():
    """Less than 5 MB in all: the whole package stays a small download."""
    files = [path for path in weigher_path().rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"weigher.json", "head.safetensors", "adapter_model.safetensors"}
    assert 1e6 < sum(path.stat().st_size for path in files) < 5e6
    assert json.loads((weigher_path() / "weigher.json").read_text(encoding="utf-8"))["base"] == "smollm2-135m"
