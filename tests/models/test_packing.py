"""Rows in long rows: losses and gradients are those of each row alone, or the model is not read so."""

import pytest
import torch

import families
import small
import tiny
from foci.focus import Batch
from foci.models.long_rows import layout_of, packed
from foci.models.losses import token_nll
from foci.models.packing import why_not

WIDTH = 24
KEEPS_APART = [*tiny.ARCHITECTURES, "jetmoe", "llama4_text"]
ROUNDED = {"gemma2", "gemma2-uncapped", "gemma3", "cohere", "cohere2"}
MIXES = {
    "recurrent": tiny.recurrent,
    "counted": tiny.counted,
    **{name: lambda name=name: families.build(name) for name in ("opt", "gpt_oss", "falcon_h1", "mamba2")},
}


def built(name):
    return tiny.build(name) if name in tiny.ARCHITECTURES else families.build(name)


def losses(model, batch):
    """NLL of every token, and the gradient of a sum with other factors at every place."""
    nll = token_nll(model, batch)
    factors = torch.linspace(0.5, 2, nll.shape[1], dtype=nll.dtype)
    gradients = torch.autograd.grad((nll * factors).sum(), [p for p in model.parameters() if p.requires_grad])
    return nll.detach(), gradients


def alone(model, batch):
    """The same from each row by itself, without padding."""
    nll, total = torch.zeros(batch.input_ids.shape, dtype=torch.float64), None
    for n, length in enumerate(batch.attention_mask.sum(1).tolist()):
        row = Batch(*(part[n : n + 1, :length] for part in (batch.input_ids, batch.attention_mask, batch.labels)))
        factors = torch.linspace(0.5, 2, batch.input_ids.shape[1], dtype=torch.float64)[:length]
        own = token_nll(model, row)
        slopes = torch.autograd.grad((own * factors).sum(), [p for p in model.parameters() if p.requires_grad])
        nll[n, :length] = own[0].detach()
        total = slopes if total is None else [a + b for a, b in zip(total, slopes, strict=True)]
    return nll, total


@pytest.mark.parametrize("name", KEEPS_APART)
def test_packed_rows_have_the_losses_and_gradients_of_rows_apart(name):
    """To 1e-10 in float64; rows are longer than the windows and chunks of the models that have some.

    Transformers computes the softmax of eager attention, and some norms, in float32 whatever it is given.
    """
    model = built(name).double()
    tolerance = 1e-5 if name in ROUNDED else 1e-10
    assert why_not(model, WIDTH) is None
    batch = Batch.of(small.rows(7, shortest=2, longest=20), tiny.PAD)
    theirs, slopes = alone(model, batch)
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
    with packed(WIDTH):
        ours, found = losses(model, batch)
    (ids,) = seen
    assert ids.shape[0] < batch.input_ids.shape[0]
    assert ids.numel() < batch.input_ids.numel()
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    for a, b in zip(found, slopes, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_padding_on_the_left_is_packed_as_that_on_the_right():
    model, rows = tiny.build("llama").double(), small.rows(7, shortest=2, longest=20)
    with packed(WIDTH):
        right, left = (token_nll(model, Batch.of(rows, tiny.PAD, side=side)) for side in ("right", "left"))
    for n, row in enumerate(rows):
        torch.testing.assert_close(left[n, -len(row) :], right[n, : len(row)], atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", MIXES)
def test_a_model_that_mixes_packed_rows_is_found_out(name):
    model = MIXES[name]()
    assert "mixes rows that are packed: its logits differ from those of each row alone" in why_not(model, WIDTH)
    rows = small.rows(7, shortest=2, longest=20)
    with torch.no_grad():
        apart = token_nll(model, Batch.of(rows, tiny.PAD))
        with packed(WIDTH):
            mixed = token_nll(model, Batch.of(rows, tiny.PAD))
    assert float((apart - mixed).abs().max()) > 0.01, "the refusal would be for nothing"


@pytest.mark.parametrize("tokens", [None, 24, 31, 36, 47, 48, 100])
def test_the_proof_takes_no_more_positions_than_a_pass(tokens):
    model, seen = tiny.build("llama"), []
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
    assert why_not(model, WIDTH, tokens) is None
    hook.remove()
    shapes = {tuple(ids.shape) for ids in seen if len(ids) > 1 or ids.shape[1] > WIDTH - 5}
    assert max(ids.numel() for ids in seen) <= (tokens or 2 * WIDTH)
    assert max(wide for _, wide in shapes) > WIDTH - 5, "a long row of the full width is read"
    assert any(count == 2 for count, _ in shapes), "two long rows are read together"


@pytest.mark.parametrize("tokens", [24, 36, 48])
def test_a_model_that_keeps_apart_only_one_long_row_is_found_out(tokens):
    """Some attention kernels look at positions only where a batch has one row."""

    class Alone(type(tiny.build("llama"))):
        def forward(self, input_ids, position_ids=None, **given):
            several = position_ids is not None and len(input_ids) > 1
            return super().forward(input_ids, position_ids=None if several else position_ids, **given)

    model = tiny.build("llama")
    model.__class__ = Alone
    assert "mixes rows that are packed" in why_not(model, WIDTH, tokens)


def test_what_depends_on_the_longest_row_is_not_packed():
    assert "rotary positions (longrope) in rows of more than 16 tokens" in why_not(tiny.stretched("longrope"), WIDTH)
    assert why_not(tiny.stretched("longrope"), 16) is None
    balanced = families.build("mixtral", output_router_logits=True)
    assert "balancing loss" in why_not(balanced, WIDTH)


def test_an_adapter_is_packed_too():
    model = tiny.lora(tiny.build("gpt2")).double()
    assert why_not(model, 64) is None
    rows = small.rows(5)
    theirs, slopes = alone(model, Batch.of(rows, tiny.PAD))
    with packed(64):
        ours, found = losses(model, Batch.of(rows, tiny.PAD))
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    for a, b in zip(found, slopes, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_layouts_by_hand():
    assert layout_of([5, 3, 4, 2], 7) == [[3, 0], [1, 2]]
    assert layout_of([5, 3, 4, 2], 14) == [[3, 1, 2, 0]]
    assert layout_of([6, 6, 1], 7) == [[2, 0], [1]]
    assert layout_of([5, 3, 8], 7) is None, "a row is longer"
    assert layout_of([4, 4, 4, 4], 7) is None, "no two fit"
    assert layout_of([4, 4, 4, 4], 8) is None, "no position is saved"
    assert layout_of([9], 16) is None


def test_asking_leaves_the_model_as_it_was():
    model = tiny.build("llama").train()
    assert why_not(model, WIDTH) is None
    assert model.training
