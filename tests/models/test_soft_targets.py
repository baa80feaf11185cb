"""Soft losses and their gradient: by hand in float64, against automatic differentiation, padding and slices."""

import math

import pytest
import torch

import tiny
from foci.config.adapter import Adapter
from foci.focus import Batch, LiveTeacher, Row, SoftTargets
from foci.models import add_adapter, head_of
from foci.models.head import Head
from foci.models.losses import token_nll
from foci.models.soft_targets import Held, Start, head_losses, live_targets, token_losses, top_k

VOCABULARY = 13


def batch(side: str = "right") -> Batch:
    generator = torch.Generator().manual_seed(3)
    rows = [
        Row(f"r{n}", tuple(torch.randint(2, 97, (length,), generator=generator).tolist()))
        for n, length in enumerate((9, 4, 13, 2))
    ]
    return Batch.of(rows, tiny.PAD, side)


def soft_slowly(student: torch.Tensor, teacher: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """T^2 KL over the k likeliest tokens of the teacher and one bucket, a position at a time, from logits."""
    found = []
    for ours, theirs in zip(student, teacher, strict=True):
        q, p = (ours / temperature).softmax(0), (theirs / temperature).softmax(0)
        top = p.topk(min(k, len(p))).indices.tolist()
        other = [n for n in range(len(p)) if n not in top]
        total = sum(p[n] * (p[n] / q[n]).log() for n in top)
        if other:
            total = total + p[other].sum() * (p[other].sum() / q[other].sum()).log()
        found.append(temperature**2 * total)
    return torch.stack(found)


class Line(torch.nn.Linear):
    """A head whose hidden states are the logits."""

    def __init__(self) -> None:
        super().__init__(VOCABULARY, VOCABULARY, bias=False, dtype=torch.float64)
        torch.nn.init.eye_(self.weight)


def head():

    return Head(Line())


def logits(seed: int, count: int = 7, spread: float = 3.0) -> torch.Tensor:
    return spread * torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_tokens_by_hand():
    """Teacher (3/4, 1/8, 1/8), learner (1/2, 1/4, 1/4), k = 1: .75 ln 1.5 + .25 ln .5 = .1308 nats."""
    log = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log().requires_grad_()
    targets = SoftTargets(
        torch.tensor([[0]]),
        torch.tensor([[0.75]], dtype=torch.float64).log(),
        torch.tensor([0.25], dtype=torch.float64).log(),
    )
    identity = torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
    torch.nn.init.eye_(identity.weight)

    nll, soft = head_losses(Head(identity), log, torch.tensor([1]), [targets])
    assert soft.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-7)
    assert nll.item() == pytest.approx(math.log(4))
    (gradient,) = torch.autograd.grad(soft.sum(), log)
    # q - p on the token that is kept; q - p_rest q / q_rest on the others
    torch.testing.assert_close(gradient, torch.tensor([[-0.25, 0.125, 0.125]], dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 4, VOCABULARY, 50])
def test_loss_and_gradient_are_those_of_slow_code(k, temperature, monkeypatch):
    student, teacher = logits(0).requires_grad_(), logits(1)
    labels = torch.tensor([0, 5, 12, 3, 3, 1, 7])
    targets = top_k(head(), teacher, LiveTeacher(k, temperature))
    factors = torch.rand(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    other = top_k(head(), logits(5), LiveTeacher(3, 1.0))
    slow = torch.stack([
        -student.log_softmax(1).gather(1, labels[:, None])[:, 0],
        soft_slowly(student, teacher, k, temperature),
        soft_slowly(student, logits(5), 3, 1.0),
    ])  # fmt: skip
    (expected,) = torch.autograd.grad((slow * factors).sum(), student)
    for elements in (2**20, 2 * VOCABULARY):  # all at once, and two positions at a time
        monkeypatch.setattr("foci.models.losses.SLICE_ELEMENTS", elements)
        found = head_losses(head(), student, labels, [targets, other])
        torch.testing.assert_close(found, slow, atol=1e-12, rtol=1e-10)
        (gradient,) = torch.autograd.grad((found * factors).sum(), student)
        torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-10)


def test_the_rest_is_exact_where_it_is_tiny():
    """Teacher and learner leave 1e-12 and 1e-13 to the rest: 1 - sum(q) would be 0 in float32."""
    student = torch.tensor([[30.0, 0.0, 0.0]])
    teacher = torch.tensor([[27.7, 0.0, 0.0]])
    identity = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.eye_(identity.weight)

    targets = top_k(Head(identity), teacher, LiveTeacher(1))
    assert float(targets.rest) == pytest.approx(math.log(2) - 27.7, abs=1e-4)
    soft = head_losses(Head(identity), student.requires_grad_(), torch.tensor([0]), [targets])[1]
    assert torch.isfinite(soft).all()
    (gradient,) = torch.autograd.grad(soft.sum(), student)
    assert torch.isfinite(gradient).all()


def test_one_hot_targets_are_plain_loss():
    student, labels = logits(0).requires_grad_(), torch.tensor([0, 5, 12, 3, 3, 1, 7])
    targets = SoftTargets(
        labels[:, None], torch.zeros(7, 1, dtype=torch.float64), torch.full((7,), -torch.inf, dtype=torch.float64)
    )
    nll, soft = head_losses(head(), student, labels, [targets])
    torch.testing.assert_close(nll, soft)
    plain, theirs = (torch.autograd.grad(part.sum(), student, retain_graph=True)[0] for part in (nll, soft))
    torch.testing.assert_close(plain, theirs)


@pytest.mark.parametrize("side", ["right", "left"])
def test_token_losses_stand_where_their_token_stands(side):
    model, read = tiny.build("llama"), batch(side)
    other = tiny.build("llama", seed=1)
    first = torch.zeros_like(read.attention_mask).bool()
    first[:, 1::2] = True
    weighted, held = read.predicted() & first, read.predicted() & ~first
    targets = live_targets(other, read, held, LiveTeacher(k=5))
    nll, (soft,) = token_losses(model, read, weighted, [Held(held, targets)])
    torch.testing.assert_close(nll, torch.where(weighted, token_nll(model, read), 0.0))
    assert bool((soft[~held] == 0).all())
    for b in range(len(read.input_ids)):
        at = read.attention_mask[b].nonzero().flatten()
        ours = model(input_ids=read.input_ids[b, at][None]).logits[0].double()
        theirs = other(input_ids=read.input_ids[b, at][None]).logits[0].double()
        slow = soft_slowly(ours[:-1], theirs[:-1], 5, 1.0)
        expected = torch.where(held[b, at[1:]], slow, 0.0)
        torch.testing.assert_close(soft[b, at[1:]].double(), expected, atol=1e-5, rtol=1e-4)


def test_the_start_of_an_adapter_is_asked_without_waking_what_is_frozen():
    model = tiny.lora(tiny.build("llama"))
    frozen = [p for name, p in model.named_parameters() if "layers.0" in name]
    for parameter in frozen:
        parameter.requires_grad_(False)
    asked = [p.requires_grad for p in model.parameters()]
    read = batch()
    with Start(model).of(model, model) as start:
        found = live_targets(start, read, read.predicted(), LiveTeacher(k=97))
    expected = live_targets(tiny.build("llama"), read, read.predicted(), LiveTeacher(k=97))
    torch.testing.assert_close(found.log_probs, expected.log_probs)
    assert [p.requires_grad for p in model.parameters()] == asked


def test_the_start_of_a_full_model_is_a_copy():
    model, read = tiny.build("llama"), batch()
    start = Start(model)
    before = live_targets(model, read, read.predicted(), LiveTeacher())
    torch.nn.init.normal_(head_of(model).module.weight)
    with start.of(model, model) as asked:
        assert asked is not model
        after = live_targets(asked, read, read.predicted(), LiveTeacher())
    torch.testing.assert_close(before.log_probs, after.log_probs)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "osf"])
def test_the_start_of_an_adapter_that_goes_on_is_the_model_with_it(kind):
    read = batch()
    model = add_adapter(tiny.build("llama"), Adapter(type=kind))
    for parameter in model.parameters():
        parameter.data += 0.05 * parameter.requires_grad
    expected = live_targets(model, read, read.predicted(), LiveTeacher(k=97))
    start = Start(model, goes_on=True)
    for parameter in model.parameters():
        parameter.data += 0.05 * parameter.requires_grad
    moved = [parameter.detach().clone() for parameter in model.parameters()]
    with start.of(model, model) as asked:
        found = live_targets(asked, read, read.predicted(), LiveTeacher(k=97))
    torch.testing.assert_close(found.log_probs, expected.log_probs)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), moved, strict=True)), "as it was"


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "osf"])
def test_the_start_is_the_model_without_its_adapter_whatever_its_type(kind):
    read = batch()
    expected = live_targets(tiny.build("llama"), read, read.predicted(), LiveTeacher(k=97))
    model = add_adapter(tiny.build("llama"), Adapter(type=kind))
    for parameter in model.parameters():
        parameter.data += 0.05 * parameter.requires_grad
    with Start(model).of(model, model) as start:
        found = live_targets(start, read, read.predicted(), LiveTeacher(k=97))
    torch.testing.assert_close(found.log_probs, expected.log_probs)
    moved = live_targets(model, read, read.predicted(), LiveTeacher(k=97))
    assert float((moved.log_probs - expected.log_probs).abs().max()) > 0.01
