"""The influence of a token's weight on a later loss, against the step itself, taken twice, and double backward."""

from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import families
import tiny
from foci import models
from foci.focus import IGNORED, Batch, Row
from foci.gradients import directional, influence
from foci.gradients.influence import gradient_alignment, token_influence
from foci.gradients.inner_step import InnerStep
from foci.models.losses import token_nll

ROWS = (range(9), range(6))  # tokens of the two documents, all but the first of which are predicted
RATES = {"sgd": 1e-2, "adam": 1e-4}
LAYOUTS = [(inner, normalise) for inner in ("sgd", "adam") for normalise in ("row", "batch", "none")]


def rows(lengths: tuple[int, ...], seed: int, side: str = "right") -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = [tuple(torch.randint(2, 97, (length,), generator=generator).tolist()) for length in lengths]
    return Batch.of([Row(f"r{n}", line) for n, line in enumerate(ids)], tiny.PAD, side)


def pair(side: str = "right") -> tuple[Batch, Batch, torch.Tensor]:
    """Two documents, two later tasks of which only the last tokens are asked for, and uneven weights."""
    batch, later = rows(tuple(map(len, ROWS)), 0, side), rows((5, 4), 1, side)
    labels = later.labels.clone()
    labels[:, :3] = IGNORED
    weights = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(2)) + 0.1
    return batch, replace(later, labels=labels), weights


def later_loss_after(model: nn.Module, batch: Batch, later: Batch, weights: torch.Tensor, inner: str, normalise: str):
    """Returns L_T(theta') by taking the step and undoing it. The tests differentiate it numerically."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    nll = token_nll(model, batch)
    if normalise == "batch":
        loss = (weights * nll).sum() / weights.sum()
    elif normalise == "none":
        loss = (weights * nll).sum() / (sum(len(line) - 1 for line in ROWS))
    else:
        loss = torch.stack([(w * n).sum() / w.sum() for w, n in zip(weights, nll, strict=True)]).mean()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            if g is not None:
                p.sub_(RATES[inner] * (g if inner == "sgd" else g / (g * g + 1e-8).sqrt()))
        task = token_nll(model, later)
        asked = later.predicted()
        value = torch.stack([line[a].mean() for line, a in zip(task, asked, strict=True)]).mean().item()
        for p, start in zip(parameters, before, strict=True):
            p.copy_(start)
    return value


@pytest.mark.parametrize(("inner", "normalise"), LAYOUTS)
@pytest.mark.parametrize("mode", ["unroll", "difference"])
def test_influence_is_how_the_later_loss_changes_when_a_weight_does(mode, inner, normalise):
    """GPT-2 computes in float64 throughout, so that the numerical derivative by the weight itself is good to 1e-7."""
    model = tiny.build("gpt2").double()
    batch, later, weights = pair()
    weights = weights.double() * batch.predicted()
    expected, size_of_step = torch.zeros_like(weights), 1e-4 if inner == "sgd" else 1e-7  # Adam bends within 1e-4
    for place in batch.predicted().nonzero().tolist():
        step = torch.zeros_like(weights)
        step[tuple(place)] = size_of_step
        up = later_loss_after(model, batch, later, weights + step, inner, normalise)
        down = later_loss_after(model, batch, later, weights - step, inner, normalise)
        expected[tuple(place)] = (up - down) / (2 * size_of_step)
    got = token_influence(model, batch, later, weights, lr=RATES[inner], mode=mode, inner=inner, normalise=normalise)
    size = expected.abs().max().item()
    assert size > 1e-6
    torch.testing.assert_close(got, expected, rtol=0, atol=size * (2e-3 if mode == "difference" else 1e-5))


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_the_difference_is_the_double_backward_on_every_architecture(name, adapted):
    """float32: to 1e-2, with a cosine of .9999."""
    model = tiny.lora(tiny.build(name)) if adapted else tiny.build(name)
    batch, later, weights = pair()
    for inner, normalise in LAYOUTS:
        options = {"lr": RATES[inner], "inner": inner, "normalise": normalise}
        truth = token_influence(model, batch, later, weights, mode="unroll", **options)
        assert bool((truth[~batch.predicted()] == 0).all())
        got = token_influence(model, batch, later, weights, **options)
        assert bool((got[~batch.predicted()] == 0).all())
        off = (got - truth).norm() / truth.norm()
        assert off < 1e-2, (name, inner, normalise, off.item())
        assert torch.cosine_similarity(got.flatten(), truth.flatten(), 0) > 0.9999


@pytest.mark.parametrize(("name", "first"), [("qwen3_moe", 11), ("mixtral", 0), ("jetmoe", 0), ("opt", 0)])
def test_the_difference_is_right_beside_kinks_and_jumps(name, first, monkeypatch):
    """A router of a mixture of experts picks other experts within the step; a ReLU switches."""
    batch, later = rows((13, 11, 9), 0), rows((13, 11), 100)
    weights, step, off = batch.predicted().float(), InnerStep(1e-2), []
    inner = directional._change

    def seen(*given):
        changes.append((inner(*given), given[-1]))
        return changes[-1][0]

    monkeypatch.setattr(directional, "_change", seen)
    monkeypatch.setattr(directional, "MEAN_MOVE", float("inf"))  # steps long enough to meet a kink
    for seed in range(first, first + 5):
        changes = []
        model = families.build(name, seed=seed)
        truth = token_influence(model, batch, later, weights, lr=1e-2, mode="unroll")
        got = token_influence(model, batch, later, weights, lr=1e-2)
        alone = max(changes, key=lambda found: found[1])
        alone = step.influence(alone[0] / (2 * alone[1]), weights, batch.predicted())
        assert (got - truth).abs().max() < 3e-3 * truth.abs().max(), seed
        off.append(float((alone - truth).abs().max() / truth.abs().max()))
    assert max(off) > 1e-2, off  # a difference at one length would have been wrong


def test_double_backward_is_the_difference_where_losses_are_smooth():
    batch, model = pair()[0], tiny.build("llama")
    direction = dict(zip(dict(model.named_parameters()), map(torch.randn_like, model.parameters()), strict=True))
    exact = directional.by_double_backward(model, batch, direction)
    found, off = directional.by_differences(model, batch, direction)
    assert off < directional.AGREE
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3 * exact.abs().max().item())


def test_a_curve_is_extrapolated():
    """The head alone moves, along a direction that changes no loss by much: one difference is 28 % off."""
    batch, later, weights = pair()
    model = tiny.build("llama").requires_grad_(False)
    model.lm_head.requires_grad_(True)
    direction = influence._direction(model, batch, later, weights * batch.predicted(), InnerStep(1e-2))[0]
    exact = directional.by_double_backward(model, batch, direction)
    found, off = directional.by_differences(model, batch, direction)
    assert off < 1e-2
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-2 * exact.abs().max().item())


def test_a_kink_where_there_is_no_double_backward_is_refused_by_name(monkeypatch):
    batch, later, weights = pair()
    monkeypatch.setattr(directional, "AGREE", -1.0)
    model = tiny.build("llama")
    ALL_ATTENTION_FUNCTIONS.register("of_mine", sdpa_attention_forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register("of_mine", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.config._attn_implementation = "of_mine"
    with pytest.raises(ValueError, match=r"LlamaForCausalLM have a kink.*'of_mine' has no formula.*'sdpa'"):
        token_influence(model, batch, later, weights, lr=1e-2)
    monkeypatch.setattr(directional, "by_double_backward", lambda *_: torch.ones(3).view(2, 2))
    model = tiny.build("llama")
    with pytest.raises(ValueError, match=r"have a kink.*failed \(shape .*experts_implementation='eager'"):
        token_influence(model, batch, later, weights, lr=1e-2)


def test_a_model_whose_gradients_are_not_its_derivatives_is_refused():
    """DoRA by name; a layer that rounds and hands gradients through."""
    batch, later, weights = pair()
    dora = models.add_adapter(tiny.build("llama"), models.Adapter(type="dora", r=4))
    for mode in ("difference", "unroll"):
        with pytest.raises(ValueError, match=r"got 14 layers with DoRA, .*use lora or rslora"):
            token_influence(dora, batch, later, weights, lr=1e-2, mode=mode)
    model = tiny.build("llama")
    model.model.layers[1].mlp = _Detached(model.model.layers[1].mlp)
    with pytest.raises(ValueError, match="LlamaForCausalLM are not the derivatives of its losses"):
        token_influence(model, batch, later, weights, lr=1e-2)


class _Detached(nn.Module):
    """Leaves a half of what it computes out of the gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        return y / 2 + (y / 2).detach()


def test_the_mean_derivative_gives_a_first_step_that_need_not_be_corrected(monkeypatch):
    """Large logits: with the usual first eps losses change by more than a difference can take."""
    model, steps, inner = tiny.build("llama", layers=3), [], directional._change
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    monkeypatch.setattr(directional, "_change", lambda *given: steps.append(given[-1]) or inner(*given))
    batch, later, weights = pair()
    truth = token_influence(model, batch, later, weights, lr=1e-4, mode="unroll")
    firsts = []
    for most in (float("inf"), directional.MEAN_MOVE):
        monkeypatch.setattr(directional, "MEAN_MOVE", most)
        steps.clear()
        found = token_influence(model, batch, later, weights, lr=1e-4)
        firsts.append(sum(step > steps[-1] for step in steps))
        assert ((found - truth).norm() / truth.norm()).item() < 3e-3
    assert firsts[1] < firsts[0]


def test_the_difference_corrects_a_wrong_first_eps(monkeypatch):
    """Adam's slope makes v large on few weights: with the first eps no loss changes by more than rounding."""
    model = tiny.build("mistral")
    batch, later, weights = pair()
    options = {"lr": 1e-4, "inner": "adam"}
    truth = token_influence(model, batch, later, weights, mode="unroll", **options)

    def off() -> float:
        return ((token_influence(model, batch, later, weights, **options) - truth).norm() / truth.norm()).item()

    assert off() < 2e-3
    monkeypatch.setattr(directional, "AGREE", 1e9)  # no double backward where lengths disagree
    monkeypatch.setattr(directional, "MOVES", (0.0, 1e9, 1.0))
    assert off() > 5e-3


def test_the_update_and_its_slope_by_hand():
    """u(g) = g / sqrt(g^2 + 1e-8): at g = 1e-4 1 / sqrt 2, slope 1e-8 / (2e-8)^1.5 = 3535.534; at 0 0 and 1e4."""
    g = torch.tensor([0.0, 1e-4, -1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.7071068, -1.0], dtype=torch.float64)
    torch.testing.assert_close(InnerStep(1.0, "adam").update(g), expected, rtol=1e-7, atol=1e-7)
    slopes = torch.tensor([1e4, 3535.533906, 1e-8], dtype=torch.float64)
    torch.testing.assert_close(InnerStep(1.0, "adam").slope(g), slopes, rtol=1e-6, atol=0)
    assert InnerStep(1.0).update(g) is g
    assert InnerStep(1.0).slope(g) == 1.0


def test_the_formula_by_hand():
    """Row 1: j (., 1, 3), w (., 1, 1): W 2, mean 2, -(.5 / 2)(-1, 1); row 2: j (., 4, .), w (., 2, .): W 2, mean 4, 0.
    By rows half of that (two rows). Over the batch: W 4, mean (1 + 3 + 8) / 4 = 3, -(.5 / 4)(-2, 0, 1). Not normalised:
    3 tokens, -(.5 / 3)(1, 3, 4), whatever the weights; L = (1 * 1 + 1 * 3 + 2 * 4) / 3 of NLLs that equal j."""
    j = torch.tensor([[9.0, 1.0, 3.0], [9.0, 4.0, 9.0]])
    weights = torch.tensor([[5.0, 1.0, 1.0], [5.0, 2.0, 5.0]])
    counted = torch.tensor([[False, True, True], [False, True, False]])
    by_row = InnerStep(0.5).influence(j, weights, counted)
    assert by_row.tolist() == [[0, 0.125, -0.125], [0, 0, 0]]
    by_batch = InnerStep(0.5, normalise="batch").influence(j, weights, counted)
    assert by_batch.tolist() == [[0, 0.25, 0], [0, -0.125, 0]]
    as_they_are = InnerStep(0.5, normalise="none")
    for scale in (1.0, 7.0):
        by_none = as_they_are.influence(j, scale * weights, counted)
        torch.testing.assert_close(by_none, torch.tensor([[0, -0.5 / 3, -1.5 / 3], [0, -2 / 3, 0]]))
        assert as_they_are.loss(j, scale * weights * counted, counted).item() == pytest.approx(4.0 * scale)


def test_a_row_without_weight_has_no_influence_and_is_not_counted():
    model = tiny.build("llama")
    batch, later, weights = pair()
    weights[1] = 0
    alone = Batch(batch.input_ids[:1], batch.attention_mask[:1], batch.labels[:1])
    for mode in ("unroll", "difference"):
        got = token_influence(model, batch, later, weights, lr=1e-2, mode=mode)
        assert bool((got[1] == 0).all())
        expected = token_influence(model, alone, later, weights[:1], lr=1e-2, mode=mode)
        torch.testing.assert_close(got[:1], expected, rtol=2e-3, atol=1e-7)
    nll = torch.tensor([[0.0, 2.0], [0.0, 8.0]])
    counted = torch.tensor([[False, True], [False, True]])
    assert InnerStep(0.5).loss(nll, torch.tensor([[0.0, 0.5], [0.0, 0.0]]), counted).item() == 2.0


def test_scaled_weights_divide_the_influence_by_the_scale():
    """L(w) does not change when w is scaled: influence times weight sums to 0 over a row, and scales by 1 / c."""
    model = tiny.build("llama")
    batch, later, weights = pair()
    one = token_influence(model, batch, later, weights, lr=1e-2, mode="unroll")
    three = token_influence(model, batch, later, 3 * weights, lr=1e-2, mode="unroll")
    torch.testing.assert_close(three * 3, one, rtol=1e-4, atol=1e-7)
    sums = (one * weights).sum(1)
    assert float(sums.abs().max()) < 1e-5 * float((one * weights).abs().sum())


def test_weights_that_are_not_normalised_scale_the_step_like_the_rate():
    """Weights times c are the rate times c: so is the influence per unit of c w, and a row without weight has one."""
    model = tiny.build("gpt2").double()
    batch, later, weights = pair()
    weights = weights.double()
    once = {"normalise": "none", "mode": "unroll"}
    three = token_influence(model, batch, later, 3 * weights, lr=1e-2, **once)
    rate = token_influence(model, batch, later, weights, lr=3e-2, **once)
    torch.testing.assert_close(3 * three, rate, rtol=1e-9, atol=0)
    assert bool((rate[batch.predicted()] != 0).all())
    weights[1] = 0
    without = token_influence(model, batch, later, weights, lr=1e-2, **once)
    assert bool((without[1][batch.predicted()[1]] != 0).all())


@pytest.mark.parametrize("mode", ["unroll", "difference"])
def test_left_padding_changes_nothing(mode):
    model = tiny.build("llama")
    found = []
    for side in ("right", "left"):
        batch, later, _ = pair(side)
        labels = later.labels.clone()
        for line, mask in zip(labels, later.attention_mask, strict=True):
            line[mask.nonzero()[:3, 0]] = IGNORED
        weights = torch.zeros(batch.input_ids.shape)
        got = token_influence(model, batch, replace(later, labels=labels), weights + 1, lr=1e-2, mode=mode)
        found.append([line[mask.bool()] for line, mask in zip(got, batch.attention_mask, strict=True)])
    for right, left in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=2e-3, atol=1e-6)


@pytest.fixture
def dropping() -> nn.Module:
    """Training, with dropout in the adapter and activation checkpointing."""
    model = tiny.lora(tiny.build("llama"))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    model.train()
    model.get_base_model().activation_checkpointing_enable()
    model.enable_input_require_grads()
    return model


@pytest.mark.parametrize("mode", ["unroll", "difference"])
def test_the_model_is_as_it_was_and_dropout_and_checkpointing_change_nothing(mode, dropping):
    batch, later, weights = pair()
    expected = token_influence(tiny.lora(tiny.build("llama")), batch, later, weights, lr=1e-2, mode=mode)
    before = {name: p.detach().clone() for name, p in dropping.named_parameters()}
    modes = [module.training for module in dropping.modules()]
    calls = []
    layer = dropping.base_model.model.model.layers[0].mlp
    with_hook = layer.register_forward_pre_hook(lambda *_: calls.append(1))
    got = token_influence(dropping, batch, later, weights, lr=1e-2, mode=mode)
    with_hook.remove()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-7)
    for name, p in dropping.named_parameters():
        assert torch.equal(p, before[name]), name
        assert p.grad is None, name
    assert [module.training for module in dropping.modules()] == modes
    assert len(calls) > {"unroll": 2, "difference": 4}[mode], "activations were not computed again"


def test_an_error_leaves_the_weights_as_they_were():
    model = tiny.build("llama")
    batch, later, weights = pair()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="later batch needs labels to predict, got none"):
        token_influence(model, batch, replace(later, labels=torch.full_like(later.labels, IGNORED)), weights, lr=1.0)
    assert all(torch.equal(p, start) for p, start in zip(model.parameters(), before, strict=True))


def test_only_what_is_trainable_counts():
    """A frozen half, and a base whose weights are int8: only the adapter moves."""
    batch, later, weights = pair()
    model = tiny.lora(tiny.build("llama"))
    assert all("lora" in name for name in influence.trainable(model))
    whole = token_influence(tiny.build("llama"), batch, later, weights, lr=1e-2)
    adapter = token_influence(model, batch, later, weights, lr=1e-2)
    assert torch.cosine_similarity(whole.flatten(), adapter.flatten(), 0) < 0.99
    quantised = tiny.lora(tiny.build("llama"))
    plain = tiny.lora(tiny.build("llama"))
    for name, module in list(quantised.named_modules()):
        if name.endswith("base_layer"):
            stored = _Int8(module)
            quantised.get_submodule(name.rpartition(".")[0]).base_layer = stored
            plain.get_submodule(name).weight.data = stored.weight()
    for mode in ("difference", "unroll"):
        got = token_influence(quantised, batch, later, weights, lr=1e-2, mode=mode)
        torch.testing.assert_close(got, token_influence(plain, batch, later, weights, lr=1e-2, mode=mode))


class _Int8(nn.Module):
    """A linear layer that keeps int8 weights and one scale per output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("stored", (linear.weight.detach() / scale).round().to(torch.int8))

    def weight(self) -> torch.Tensor:
        return self.stored.float() * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight())


def test_settings_that_cannot_work_are_refused_before_anything_runs(monkeypatch):
    batch, later, weights = pair()
    monkeypatch.setattr(influence, "token_nll", lambda *_: pytest.fail("something ran"))
    model = tiny.build("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"mode 'unroll'.*'flash_attention_2'.*mode='difference'"):
        token_influence(model, batch, later, weights, lr=1e-2, mode="unroll")
    with pytest.raises(ValueError, match="an inner step is 'sgd' or 'adam' with a rate of at least 0, got"):
        token_influence(tiny.build("llama"), batch, later, weights, lr=-1.0)
    with pytest.raises((ValueError, TypeCheckError)):
        InnerStep(1.0, normalise="update")
    with pytest.raises(ValueError, match=r"torch.bfloat16 weights.*load the model in float32"):
        gradient_alignment(tiny.build("llama").bfloat16(), batch, later, weights, InnerStep(1e-2))
    with pytest.raises((ValueError, TypeCheckError)):
        token_influence(tiny.build("llama"), batch, later, weights, lr=1e-2, mode="jvp")
    with pytest.raises(ValueError, match="a rate or a length above 0, not both"):
        InnerStep(1.0, length=0.3)
    frozen = tiny.build("llama").requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient"):
        token_influence(frozen, batch, later, weights, lr=1e-2)
    model = tiny.build("llama")
    with pytest.raises((ValueError, TypeCheckError)):
        token_influence(model, batch, later, weights[:, :1], lr=1e-2)
    for bad in (weights * 0, weights * float("nan"), -weights):
        with pytest.raises(ValueError, match="weights must be finite and at least 0, and some above 0"):
            token_influence(model, batch, later, bad, lr=1e-2)


def test_a_model_that_already_answers_gives_zeros():
    """With no gradient of the later loss there is no direction."""
    model = tiny.build("llama")
    batch, later, weights = pair()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    for p in model.parameters():
        p.requires_grad_(p is not model.lm_head.weight)
    assert bool((token_influence(model, batch, later, weights, lr=1e-2) == 0).all())


def test_weights_from_a_graph_are_left_to_their_graph():
    """Gradients do not reach the graph that the weights came from; a caller may go backward through it afterwards."""
    model, (batch, later, _) = tiny.build("llama"), pair()
    strength = torch.ones((), requires_grad=True)
    weights = strength * torch.ones(batch.input_ids.shape)
    influence = token_influence(model, batch, later, weights, lr=1e-2)
    assert strength.grad is None
    weights.backward(influence)
    assert torch.equal(strength.grad, influence.sum())
