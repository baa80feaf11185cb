"""The change of weights: the ends bit for bit, FAPM's score by hand, and a model that slides."""

import pytest
import torch

import tiny
from foci.slide.change import Slider, pruned, scaled
from foci.slide.settings import HOWS

START = torch.tensor([[1.0, 2.0], [-1.0, 4.0]])
END = torch.tensor([[1.5, 2.2], [-0.7, 3.6]])


def test_scaling_by_hand():
    torch.testing.assert_close(scaled(START, END, 0.25), torch.tensor([[1.125, 2.05], [-0.925, 3.9]]))


def test_pruning_by_hand():
    """mean|W0| = 2, so the scores are .5 (1 - 2), .2 (1 - 1), .3 (1 - 2) and .4 (1 - .5): -.5, 0, -.3, .2."""
    assert torch.equal(pruned(START, END, 0.25), torch.tensor([[1.0, 2.0], [-1.0, 3.6]]))
    assert torch.equal(pruned(START, END, 0.5), torch.tensor([[1.0, 2.2], [-1.0, 3.6]]))
    assert torch.equal(pruned(START, END, 0.75), torch.tensor([[1.0, 2.2], [-0.7, 3.6]]))


def test_a_weight_that_was_0_changes_last():
    start, end = torch.tensor([[0.0, 1.0], [1.0, 2.0]]), torch.tensor([[9.0, 1.1], [1.2, 2.1]])
    assert [float(pruned(start, end, share)[0, 0]) for share in (0.25, 0.75, 1.0)] == [0.0, 0.0, 9.0]


@pytest.mark.parametrize("make", [scaled, pruned])
def test_the_ends_are_the_same_bits(make):
    start, end = torch.randn(64, 64), 9 * torch.randn(64, 64)
    assert not torch.equal(start + (end - start) * 1.0, end) or make is pruned  # the formula alone would be off
    assert torch.equal(make(start, end, 0.0), start)
    assert torch.equal(make(start, end, 1.0), end)


@pytest.mark.parametrize("how", HOWS)
def test_a_model_slides_there_and_back(how):
    start, other = tiny.build("llama-tied", seed=1), tiny.build("llama-tied", seed=2)
    before = {name: p.detach().clone() for name, p in start.named_parameters()}
    end = {name: p.detach() for name, p in other.named_parameters()}
    end["model.norm.weight"] = before["model.norm.weight"]
    slider = Slider(start, end, how)
    assert "model.norm.weight" not in slider.start
    for share, wanted in ((0.3, None), (1.0, end), (0.6, None), (0.0, before)):
        slider.move(share)
        if wanted is not None:
            assert all(torch.equal(p, wanted[name]) for name, p in start.named_parameters())
        else:
            assert not any(torch.equal(p, before[n]) for n, p in start.named_parameters() if n in slider.start)


def test_another_model_is_refused():
    end = dict(tiny.build("llama", width=64).named_parameters())
    with pytest.raises(ValueError, match=r"lm_head.weight has shape \(97, 32\) at the start and \(97, 64\) at the end"):
        Slider(tiny.build("llama"), end, "scale")
