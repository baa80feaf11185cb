"""The NLL of tokens, against whole logits and values by hand, for every architecture, padding and precision."""

import math
import warnings

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn import functional as F

import tiny
from foci.attention import received
from foci.focus import IGNORED, Batch, Row
from foci.gradients.norms import block_norms
from foci.models import head_of, losses, padding
from foci.models.decoding import Cached, FromStart, reading


def batch(side: str = "right") -> Batch:
    generator = torch.Generator().manual_seed(3)
    rows = [
        Row(f"r{n}", tuple(torch.randint(2, 97, (length,), generator=generator).tolist()))
        for n, length in enumerate((9, 4, 13, 2))
    ]
    return Batch.of(rows, tiny.PAD, side)


def slow_nll(model, batch: Batch) -> torch.Tensor:
    """One row at a time, no padding, the model's own logits."""
    out = torch.zeros(batch.input_ids.shape, dtype=torch.float64)
    for b in range(len(batch.input_ids)):
        at = batch.attention_mask[b].nonzero().flatten().tolist()
        logits = model(input_ids=batch.input_ids[b, at][None]).logits[0].double()
        for n, t in enumerate(at[1:], start=1):
            if batch.labels[b, t] != IGNORED:
                out[b, t] = -logits[n - 1].log_softmax(-1)[batch.labels[b, t]]
    return out.detach()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "lora"])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_nll_is_that_of_single_unpadded_rows(name, wrapped, side):
    model = tiny.build(name)
    model = tiny.lora(model) if wrapped else model
    b = batch(side)
    torch.testing.assert_close(losses.token_nll(model, b).double(), slow_nll(model, b), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("build", [tiny.counted, tiny.recurrent])
@pytest.mark.parametrize("side", ["right", "left"])
def test_positions_that_are_counted_and_states_do_not_see_padding(build, side):
    model, b = build(), batch(side)
    torch.testing.assert_close(losses.token_nll(model, b).double(), slow_nll(model, b), atol=2e-5, rtol=1e-5)


def test_a_model_that_reads_its_padding_is_refused_by_name_where_there_is_some():
    model, b = tiny.build("llama"), batch()
    model.model.norm.register_forward_hook(lambda _, inputs, out: out * out.shape[1])
    whole = Batch.of([Row("a", (5, 6, 7))], tiny.PAD)
    torch.testing.assert_close(losses.token_nll(model, whole).double(), slow_nll(model, whole), atol=1e-4, rtol=1e-5)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM .*reads its padding"):
        losses.token_nll(model, b)


def counting(*lengths: int) -> Batch:
    return Batch.of([Row(str(n), tuple(range(2, 2 + n))) for n in lengths], tiny.PAD)


@pytest.mark.parametrize(("kind", "lengths", "passes"), [
    ("longrope", (20, 9, 18), 2), ("longrope", (20, 18), 1), ("longrope", (9, 5), 1), ("dynamic", (20, 18, 9), 3),
    ("default", (20, 9), 1),
])  # fmt: skip
def test_rows_that_change_each_other_are_read_apart(kind, lengths, passes):
    model, b = tiny.stretched(kind), counting(*lengths)
    groups = padding.together(model, b.attention_mask)
    assert len(groups) == passes
    assert sorted(torch.cat([rows for rows, _ in groups]).tolist()) == list(range(len(lengths)))
    said = padding.changes_of(model, b.attention_mask)
    assert (said is None) == (passes == 1)
    if said:
        assert f"a row of {min(lengths)} tokens beside one of 20 is not read as it is alone" in said


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_beside_a_longer_one_has_the_nll_of_the_row_alone(side):
    model, rows = tiny.stretched("longrope"), [Row(str(n), tuple(range(2, 2 + n))) for n in (20, 9, 18, 16)]
    b = Batch.of(rows, tiny.PAD, side)
    expected = slow_nll(model, b)
    torch.testing.assert_close(losses.token_nll(model, b).double(), expected, atol=2e-5, rtol=1e-5)
    whole = losses.logits_nll(model(b.input_ids, b.attention_mask).logits[:, :-1], b.input_ids[:, 1:])
    assert ((whole - expected[:, 1:]).abs() * b.predicted()[:, 1:]).max() > 1e-2  # one pass is wrong


def test_answers_come_from_a_cache_until_a_row_is_so_long_that_it_changes_others():
    model, b = tiny.stretched("longrope"), counting(9, 4)
    assert isinstance(reading(model, b, 7), Cached)
    assert isinstance(reading(model, b, 8), FromStart)


def test_rotary_positions_that_remember_the_longest_row_are_told():
    model = tiny.stretched("dynamic")
    with pytest.warns(UserWarning, match=r"Phi3ForCausalLM keeps the rotary positions .* more than 16 tokens"):
        losses.token_nll(model, counting(20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses.token_nll(model, counting(16, 9))
        losses.token_nll(tiny.stretched("longrope"), counting(20, 9))


def test_padding_between_tokens_is_refused_at_every_entrance():
    model, ids = tiny.build("gpt2"), torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 8, 9]])
    for hole in ([1, 0, 0, 1, 1], [0, 1, 1, 0, 1]):
        b = Batch(ids, torch.tensor([[1, 1, 1, 1, 1], hole]), ids)
        for read in (
            lambda b=b: losses.token_nll(model, b),
            lambda b=b: block_norms(model, b, b.predicted()),
            lambda b=b: received(model, b.input_ids, b.attention_mask),
        ):
            with pytest.raises(ValueError, match=r"padding between the tokens of rows \[1\] of 2"):
                read()
    b = Batch(ids, torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]), ids)
    assert losses.token_nll(model, b).shape == (2, 5)


def test_nll_by_hand():
    """Two tokens of vocabulary, logits (0, ln 3): p(1) = 3/4, so the NLL of token 1 is ln(4/3)."""
    model = tiny.build("llama", vocab=2)
    head_of(model).module.weight.data.zero_()
    head_of(model).module.bias = torch.nn.Parameter(torch.tensor([0.0, math.log(3)]))
    b = Batch(torch.tensor([[0, 1, 0]]), torch.ones(1, 3, dtype=torch.long), torch.tensor([[0, 1, 0]]))
    torch.testing.assert_close(losses.token_nll(model, b), torch.tensor([[0.0, math.log(4 / 3), math.log(4)]]))


def test_no_nll_at_first_padding_and_ignored_tokens():
    model, b = tiny.build("llama"), batch()
    b.labels[0, 3] = IGNORED
    nll = losses.token_nll(model, b)
    assert (nll[:, 0] == 0).all()
    assert nll[0, 3] == 0
    assert (nll[b.attention_mask == 0] == 0).all()
    assert (nll[b.predicted()] > 0).all()


def test_where_keeps_positions_from_the_head(monkeypatch):
    model, b = tiny.build("llama"), batch()
    where = torch.zeros_like(b.input_ids, dtype=torch.bool)
    where[2, 5] = where[0, 2] = True
    seen = []
    inner = losses.head_nll
    monkeypatch.setattr(losses, "head_nll", lambda head, h, t: (seen.append(len(h)), inner(head, h, t))[1])
    nll = losses.token_nll(model, b, where)
    assert seen == [2]
    torch.testing.assert_close(nll, losses.token_nll(model, b) * where)


def test_hooks_of_the_head_see_only_what_counts():
    model, b = tiny.build("llama"), batch()
    where = torch.zeros_like(b.input_ids, dtype=torch.bool)
    where[2, 5] = where[0, 2] = True
    seen = []
    losses.token_nll(model, b, where)  # the first use of a model runs it on a few tokens
    model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    losses.token_nll(model, b, where)
    assert seen == [(2, 32)]


def test_slices_change_nothing(monkeypatch):
    """In float64, with 97 x 8 logits at a time: value and gradient of every parameter, soft-capping included.

    No padding: Transformers' eager attention gives NaN in float64 where a window holds nothing but padding.
    """
    model = tiny.build("gemma2", dtype=torch.float64)
    ids = torch.randint(2, 97, (4, 13))
    b = Batch(ids, torch.ones_like(ids), ids)
    weights = torch.rand(b.input_ids.shape, dtype=torch.float64)

    def gradients():
        model.zero_grad()
        (losses.token_nll(model, b) * weights).sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    whole = gradients()
    monkeypatch.setattr(losses, "SLICE_ELEMENTS", 97 * 8)
    for a, c in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(a, c, atol=1e-12, rtol=1e-10)


def test_gradient_is_that_of_full_logits():
    model, b = tiny.build("llama-tied", dtype=torch.float64), batch()
    loss = losses.token_nll(model, b).sum()
    ours = torch.autograd.grad(loss, list(model.parameters()))
    logits = model(input_ids=b.input_ids, attention_mask=b.attention_mask).logits[:, :-1]
    full = F.cross_entropy(logits.reshape(-1, 97), b.labels[:, 1:].reshape(-1), reduction="sum", ignore_index=IGNORED)
    torch.testing.assert_close(loss, full, atol=1e-10, rtol=1e-12)
    for a, c in zip(ours, torch.autograd.grad(full, list(model.parameters())), strict=True):
        torch.testing.assert_close(a, c, atol=1e-10, rtol=1e-9)


def test_bfloat16_losses_are_float32():
    model, b = tiny.build("llama"), batch()
    exact = losses.token_nll(model, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nll = losses.token_nll(model, b)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, exact, atol=0.1, rtol=0.05)


def test_head_is_as_it_was_after_an_error():
    model = tiny.build("llama")
    ids = torch.tensor([[2, 3, 4]])
    before = model(input_ids=ids).logits
    with pytest.raises(RuntimeError, match="boom"), losses.captured_hidden(model):
        raise RuntimeError("boom")
    torch.testing.assert_close(model(input_ids=ids).logits, before, atol=0, rtol=0)


def test_weighted_mean_by_hand():
    """(1*2 + 3*4) / (1 + 3) = 3.5; a scale of the weights changes nothing."""
    nll, weights = torch.tensor([[0.0, 2.0, 4.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    assert losses.weighted_mean(nll, weights) == 3.5
    assert losses.weighted_mean(nll, 10 * weights) == 3.5
    assert losses.weighted_mean(nll, weights, torch.tensor(7.0)) == 2
    assert losses.weighted_mean(nll, 0 * weights) == 0


def test_weights_that_would_be_broadcast_are_refused():
    """By the shape types under pytest, by a ValueError without them."""
    with pytest.raises((ValueError, TypeCheckError)):
        losses.weighted_mean(torch.ones(2, 3), torch.ones(2, 1))
