"""The locality term: its value by hand and by a slow version, and its part in the influence of a weight."""

import math

import pytest
import torch
from torch import nn

import tiny
from foci.focus import IGNORED, Batch, Row
from foci.gradients.influence import later_loss, token_influence, trainable
from foci.meta.config import LocalityConfig
from foci.meta.locality import Reference, locality, log_probabilities, reference
from foci.models.losses import token_nll

DOCUMENTS = ((5, 9, 44, 7, 12, 31), (8, 13, 21))
TASKS = ((3, 17, 60, 24), (11, 2, 90))
TEXT = ((50, 51, 52, 53, 54, 55, 56), (70, 71, 72, 73))


def rows(lines: tuple[tuple[int, ...], ...], asked: int = 1) -> Batch:
    batch = Batch.of([Row(f"r{n}", line) for n, line in enumerate(lines)], tiny.PAD)
    batch.labels[:, :asked] = IGNORED
    return batch


def moved(model: nn.Module, seed: int = 3, size: float = 0.02) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * size)
    return model


def slow_divergence(before: nn.Module, after: nn.Module) -> torch.Tensor:
    """KL(before || after), each row alone and each token alone, by the models' own logits."""
    found = []
    for line in TEXT:
        ids = torch.tensor([line])
        ours, theirs = before(input_ids=ids).logits[0].detach(), after(input_ids=ids).logits[0]
        for place in range(len(line) - 1):
            p, q = ours[place].softmax(0), theirs[place].softmax(0)
            found.append(sum(p[v] * (p[v].log() - q[v].log()) for v in range(len(p))))
    return sum(found) / len(found)


def test_the_divergence_by_hand(monkeypatch):
    """p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2 = .13081 (the other way round .14384); of q itself 0."""
    p, q = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()
    batch = rows(((5, 6, 7),))
    monkeypatch.setattr("foci.meta.locality.log_probabilities", lambda *_: torch.stack([q, q]))
    found = Reference(batch, torch.stack([p, q])).divergence(nn.Identity()).item()
    assert found == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2, rel=1e-6)
    assert found == pytest.approx(0.13081 / 2, rel=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "cohere"])
def test_value_and_gradient_are_those_of_a_slow_version(name):
    """In float64. gemma2 caps its logits, cohere scales them; rows of unlike length are padded."""
    before, after = tiny.build(name).double(), moved(tiny.build(name).double())
    asked = reference(before, rows(TEXT))
    assert not asked.before.requires_grad
    assert asked.before.shape[0] == sum(len(line) - 1 for line in TEXT)
    torch.testing.assert_close(asked.before.exp().sum(1), torch.ones(len(asked.before), dtype=torch.float64))
    found, slow = asked.divergence(after), slow_divergence(before, after)
    assert slow.item() > 1e-3
    torch.testing.assert_close(found, slow, rtol=1e-6, atol=0)
    back = reference(after, rows(TEXT)).divergence(before)
    assert abs(back.item() / slow.item() - 1) > 1e-4, "KL(after || before) is another number"
    parameters = list(after.parameters())
    for ours, theirs in zip(torch.autograd.grad(found, parameters), torch.autograd.grad(slow, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_the_untouched_model_has_none_and_no_pull():
    model = tiny.build("gpt2").double()
    found = reference(model, rows(TEXT)).divergence(model)
    assert abs(found.item()) < 1e-15
    assert all(g.abs().max() < 1e-12 for g in torch.autograd.grad(found, list(model.parameters())))


def test_log_probabilities_are_those_of_the_losses_and_know_no_dropout_or_autocast():
    model = tiny.build("gpt2")
    batch = rows(TEXT)
    expected = log_probabilities(model, batch)
    targets = batch.labels[batch.predicted()]
    nll = token_nll(model, batch)[batch.predicted()]
    torch.testing.assert_close(-expected.gather(1, targets[:, None])[:, 0], nll)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(log_probabilities(model, batch), expected)
    assert expected.dtype == torch.float32


@pytest.mark.parametrize("normalise", ["row", "none"])
@pytest.mark.parametrize("mode", ["unroll", "difference"])
def test_its_part_in_the_influence_is_what_the_step_itself_says(mode, normalise):
    """d(task + 2 KL) / dw by taking the step with a little more and a little less weight, in float64."""
    model, rate = tiny.build("gpt2").double(), 0.3
    batch, task = rows(DOCUMENTS), rows(TASKS, asked=2)
    weights = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.5
    weights = weights * batch.predicted()
    text = reference(model, rows(TEXT))

    def later(of: nn.Module) -> torch.Tensor:
        return later_loss(of, task) + 2.0 * text.divergence(of)

    def after(weights: torch.Tensor) -> float:
        nll = token_nll(model, batch)
        by_row = ((weights * nll).sum(1) / weights.sum(1)).mean()
        loss = by_row if normalise == "row" else (weights * nll).sum() / 7  # 5 + 2 tokens of the two are predicted
        parameters = list(trainable(model).values())
        start = [p.detach().clone() for p in parameters]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.sub_(rate * g)
            value = later(model).item()
            for p, own in zip(parameters, start, strict=True):
                p.copy_(own)
        return value

    expected, of_task = torch.zeros_like(weights), {"lr": rate, "mode": "unroll", "normalise": normalise}
    for place in batch.predicted().nonzero().tolist():
        step = torch.zeros_like(weights)
        step[tuple(place)] = 1e-4
        expected[tuple(place)] = (after(weights + step) - after(weights - step)) / 2e-4
    found = token_influence(model, batch, later, weights, lr=rate, mode=mode, normalise=normalise)
    size = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=size * (2e-3 if mode == "difference" else 1e-5))
    without = token_influence(model, batch, task, weights, **of_task)
    assert (found - without).norm() > 0.02 * without.norm(), "the divergence has a part in it"


def test_windows_are_drawn_by_a_key_and_others_are_held_out(tmp_path):
    model, tokenizer = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer()
    assert locality(LocalityConfig(), model, tokenizer) is None
    made = locality(LocalityConfig(strength=0.1, max_length=32), model, tokenizer)
    assert made is not None
    assert made.held_out.batch.input_ids.shape[0] == 2
    assert len(made.rows) > 20
    once, again, other = (made.drawn(model, 0, key) for key in (1, 1, 2))
    assert torch.equal(once.batch.input_ids, again.batch.input_ids)
    assert torch.equal(once.before, again.before)
    assert not torch.equal(once.batch.input_ids, other.batch.input_ids)
    held_out = {tuple(line[line != tiny.PAD].tolist()) for line in made.held_out.batch.input_ids}
    assert not held_out & {row.input_ids for row in made.rows}
    short = tmp_path / "short.txt"
    short.write_text("A few words.")
    with pytest.raises(ValueError, match=r"short\.txt': .* of at most 128 tokens than the 2 .*, got 1"):
        locality(LocalityConfig(strength=0.1, text=str(short)), model, tokenizer)
    with pytest.raises(FileNotFoundError, match="there is no file nowhere"):
        locality(LocalityConfig(strength=0.1, text="nowhere"), model, tokenizer)
    with pytest.raises(ValueError, match=r"off at strength 0, got .*batch_size.: 1"):
        LocalityConfig(batch_size=1)
