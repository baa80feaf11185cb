"""Steps and alignments of many documents at the same time, against one document after another."""

from dataclasses import replace

import pytest
import torch

import tiny
from foci import models
from foci.focus import IGNORED, Batch, Row
from foci.gradients import by_row
from foci.gradients.influence import gradient_alignment, later_loss, stepped
from foci.gradients.inner_step import InnerStep

LENGTHS, ASKED = (9, 6, 12), (5, 4, 7)
STEPS = [
    InnerStep(1e-2),
    InnerStep(length=0.3),
    InnerStep(1e-4, "adam"),
    InnerStep(1e-2, normalise="none"),
    InnerStep(0.0),
]


def rows(lengths: tuple[int, ...], seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Row(f"r{n}", tuple(torch.randint(2, 97, (length,), generator=generator).tolist()))
        for n, length in enumerate(lengths)
    ]


def asked(some: list[Row]) -> Batch:
    """Returns later tasks of which the first three tokens are not asked for."""
    batch = Batch.of(some, tiny.PAD, "right")
    labels = batch.labels.clone()
    labels[:, :3] = IGNORED
    return replace(batch, labels=labels)


def adapted(name: str, dtype: torch.dtype = torch.float32):
    """A tiny model with an adapter, as `foci meta` adds it, whose B is not 0."""
    model = models.add_adapter(tiny.build(name), models.Adapter(r=4, alpha=8)).to(dtype)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_B" in key:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return model


def given():
    documents, tasks = rows(LENGTHS, 0), rows(ASKED, 1)
    batch = Batch.of(documents, tiny.PAD, "right")
    weights = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(2)) + 0.1
    alone = [
        (Batch.of([d], tiny.PAD, "right"), asked([t]), weights[n : n + 1, : len(d)])
        for n, (d, t) in enumerate(zip(documents, tasks, strict=True))
    ]
    return batch, asked(tasks), weights, alone


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("name", ["llama-tied", "gemma2", "gpt-neox"])
def test_rows_at_the_same_time_are_rows_one_by_one(name, step):
    model = adapted(name)
    batch, later, weights, alone = given()
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    found = by_row.alignments(model, batch, later, weights, step)
    losses = by_row.later_losses(model, batch, later, weights, step)
    assert len(set(losses.tolist())) == 3
    for n, (document, task, own) in enumerate(alone):
        expected = gradient_alignment(model, document, task, own, step)[0]
        size = expected.abs().max().item()
        assert size > 1e-4
        torch.testing.assert_close(found[n, : len(expected)], expected, rtol=0, atol=5e-3 * size)
        assert not found[n, len(expected) :].any()
        with stepped(model, document, own * document.predicted(), step), torch.no_grad():
            assert losses[n].item() == pytest.approx(float(later_loss(model, task)), abs=2e-5)
    assert all(torch.equal(before[key], p) for key, p in model.named_parameters())
    assert not any(module._forward_hooks for module in model.modules() if type(module) is torch.nn.Linear)


def test_alignments_are_the_products_of_the_rows_own_gradients():
    """In float64, with the step's own derivative written out: j_i = <grad nll_i, grad later loss at theta'>."""
    model = adapted("gpt-neox", torch.float64)
    batch, later, weights, alone = given()
    found = by_row.alignments(model, batch, later, weights.double(), InnerStep(1e-2))
    parameters = [p for p in model.parameters() if p.requires_grad]
    for n, (document, task, own) in enumerate(alone):
        with stepped(model, document, own.double() * document.predicted(), InnerStep(1e-2)):
            along = torch.autograd.grad(later_loss(model, task), parameters)
        for t in range(1, LENGTHS[n]):
            nll = by_row.token_nll(model, document)[0, t]
            slopes = torch.autograd.grad(nll, parameters)
            j = sum(float((g * v).sum()) for g, v in zip(slopes, along, strict=True))
            assert found[n, t].item() == pytest.approx(j, abs=2e-3 * float(found[n].abs().max()))


def test_a_row_whose_differences_disagree_is_computed_alone(monkeypatch):
    model = adapted("llama")
    batch, later, weights, _ = given()
    step, seen = InnerStep(1e-2), []
    real = by_row.gradient_alignment
    monkeypatch.setattr(by_row, "gradient_alignment", lambda *a: (seen.append(a[1]), real(*a))[1])
    expected = by_row.alignments(model, batch, later, weights, step)
    assert not seen
    derivatives = by_row._derivatives

    def spoiled(*a):
        found, sure = derivatives(*a)
        found[1], sure[1] = 7.0, False
        return found, sure

    monkeypatch.setattr(by_row, "_derivatives", spoiled)
    found = by_row.alignments(model, batch, later, weights, step)
    assert [tuple(one.input_ids.shape) for one in seen] == [(1, max(LENGTHS))]
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3 * float(expected.abs().max()))


def test_what_rows_cannot_have_of_their_own_is_refused():
    batch, later, weights, _ = given()
    with pytest.raises(ValueError, match=r"linear maps alone are trained, got \d+ other parameters, .*learner: "):
        by_row.alignments(tiny.build("llama"), batch, later, weights, InnerStep(1e-2))
    model = adapted("llama")
    by_row.token_nll(model, batch)  # its first run is a probe of one row
    two = {name: p.new_zeros(2, *p.shape) for name, p in model.named_parameters() if p.requires_grad}
    with by_row._changed(model, two), pytest.raises(ValueError, match=r"got \(3, 12, 32\) for 2 rows; set step"):
        by_row.token_nll(model, batch)
    with pytest.raises(ValueError, match="got 3 documents and 2 tasks"):
        by_row.alignments(model, batch, asked(rows(ASKED, 1)[:2]), weights, InnerStep(1e-2))
    unasked = replace(later, labels=torch.full_like(later.labels, IGNORED))
    with pytest.raises(ValueError, match="got 3 documents and 0 tasks"):
        by_row.later_losses(model, batch, unasked, weights, InnerStep(1e-2))
