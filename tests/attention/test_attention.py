"""Pattern losses against the S x S form, and a model that is as it was afterwards."""

import pytest
import torch

import small
import tiny
from foci.attention import Guide, guided, logits, pattern_loss, pattern_targets

PATTERNS = ["same", "previous", "previous-2", "first"]


def slow_loss(query, key, pattern, real, cap=None):
    """sum ||A - P||^2 with whole maps, causal, rows without a target left out."""
    batch, heads, seq, width = query.shape
    scores = query @ key.transpose(-1, -2) * width**-0.5
    scores = cap * torch.tanh(scores / cap) if cap else scores
    total = torch.zeros((), dtype=query.dtype)
    for b in range(batch):
        tokens = real[b].nonzero().flatten().tolist()
        for h in range(heads):
            for i in tokens:
                j = {"same": i, "previous": i - 1, "previous-2": i - 2, "first": tokens[0]}[pattern]
                if j not in tokens:
                    continue
                seen = [k for k in tokens if k <= i]
                row = torch.zeros(seq, dtype=query.dtype)
                row[seen] = scores[b, h, i, seen].softmax(-1)
                wanted = torch.zeros(seq, dtype=query.dtype)
                wanted[j] = 1
                total = total + (row - wanted).square().sum()
    return total


@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_loss_is_the_s_by_s_form(monkeypatch, pattern, side, cap):
    monkeypatch.setattr(logits, "QUERIES_AT_A_TIME", 4)
    real = torch.ones(2, 11, dtype=torch.bool)
    real[1, -4:] = False
    real = real if side == "right" else real.flip(1)
    query, key = (torch.randn(2, 3, 11, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    visible = (torch.ones(11, 11).tril().bool() & real[:, None, :])[:, None]
    ours = pattern_loss(query, key, pattern, real, visible, softcap=cap)
    slow = slow_loss(query, key, pattern, real, cap)
    torch.testing.assert_close(ours, slow, atol=1e-12, rtol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (query, key)), torch.autograd.grad(slow, (query, key)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_by_hand():
    """Two tokens, equal scores: row 1 is (1/2, 1/2), so previous costs 1/4 + 1/4; row 0 has no previous."""
    zero = torch.zeros(1, 1, 2, 4)
    real = torch.ones(1, 2, dtype=torch.bool)
    assert float(pattern_loss(zero, zero, "previous", real)) == pytest.approx(0.5)
    assert float(pattern_loss(zero, zero, "same", real)) == pytest.approx(0 + 0.5)


def test_targets_by_hand():
    real = torch.tensor([[False, True, True, True]])
    target, has = pattern_targets("previous", real)
    assert has.tolist() == [[False, False, True, True]]
    assert target[has].tolist() == [1, 2]
    target, has = pattern_targets("first", real)
    assert target[has].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_guided_model_gives_the_same_outputs_and_is_as_it_was(name):
    model, b = tiny.build(name), small.batch(3)
    before = model(input_ids=b.input_ids, attention_mask=b.attention_mask).logits
    implementation = model.config._attn_implementation
    with guided(model, Guide({1: {0: "previous", 1: "first"}})) as guide:
        guide.real, guide.scales = b.attention_mask.bool(), {"previous": 1.0, "first": 1.0}
        within = model(input_ids=b.input_ids, attention_mask=b.attention_mask).logits
        assert set(guide.values) == {(1, "previous"), (1, "first")}
        assert all(float(value) > 0 for value in guide.values.values())
        real = b.attention_mask.bool()
        torch.testing.assert_close(within[real], before[real], atol=1e-6, rtol=1e-5)
    assert model.config._attn_implementation == implementation
    after = model(input_ids=b.input_ids, attention_mask=b.attention_mask).logits
    torch.testing.assert_close(after, before, atol=0, rtol=0)


def test_a_head_that_is_not_there_is_refused():
    model, b = tiny.build("llama"), small.batch(2)
    with (
        pytest.raises(ValueError, match="has heads 0 to 3, guidance names head 9"),
        guided(model, Guide({0: {9: "same"}})) as guide,
    ):
        guide.real, guide.scales = b.attention_mask.bool(), {"same": 1.0}
        model(input_ids=b.input_ids, attention_mask=b.attention_mask)
