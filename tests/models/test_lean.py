"""Lean training passes: the same numbers, less kept; the model outside of them is as it was."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

import small
import tiny
from foci import FocusTrainer, Plan, models, token_nll
from foci.focus import Batch, SoftTargets
from foci.models.lean import Lean
from foci.models.lean_parts import gated_lora, gated_silu, lora_linear, rms_norm
from foci.models.soft_targets import Held, is_frozen, summed_loss, token_losses
from foci.training.passes import Passes
from training import Recorder, arguments, assert_same, weights

DOUBLE = {"dtype": torch.float64}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def test_lora_layer_by_hand():
    """y = x W^T + bias + s (x A^T) B^T: x = (1, 2), W = (3, 4), bias 5, A = (6, 7), B = (8), s = 0.5 gives 96."""
    one = [torch.tensor(v, **DOUBLE) for v in ([[1.0, 2.0]], [[3.0, 4.0]], [5.0], [[6.0, 7.0]], [[8.0]])]
    assert lora_linear(*one, 0.5, torch.float64).tolist() == [[3 + 8 + 5 + 0.5 * 20 * 8]]


def test_gradients_are_those_of_finite_differences():
    x, a, b = random(2, 3, 5), random(2, 5, seed=1), random(4, 2, seed=2)
    w, bias = random(4, 5, seed=3).detach(), random(4, seed=4).detach()
    assert torch.autograd.gradcheck(lambda x, a, b: lora_linear(x, w, bias, a, b, 0.7, torch.float64), (x, a, b))
    gain = random(5, seed=5).detach()
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, gain, 1e-5, x.dtype), (x,))
    up = random(2, 3, 5, seed=6)
    assert torch.autograd.gradcheck(gated_silu, (x, up))
    assert torch.autograd.gradcheck(lambda x, up, a, b: gated_lora(x, up, w, bias, a, b, 0.7), (x, up, a, b))


def test_norm_and_gate_are_torch_s():
    x, gain = random(2, 3, 5), random(5, seed=5).detach()
    torch.testing.assert_close(rms_norm(x, gain, 1e-5, x.dtype), F.rms_norm(x, (5,), gain, 1e-5))
    torch.testing.assert_close(gated_silu(x, x + 1), F.silu(x) * (x + 1))


def test_lora_on_a_gated_mlp_is_one_after_the_other_and_keeps_no_product():
    gate, up = random(2, 3, 5), random(2, 3, 5, seed=6)
    layer = (random(4, 5, seed=3).detach(), None, random(2, 5, seed=1), random(4, 2, seed=2), 0.7)

    def kept(call):
        shapes = []

        def keep(tensor):
            shapes.append(tuple(tensor.shape))
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return call(), shapes

    (ours, few), (theirs, more) = (
        kept(lambda: gated_lora(gate, up, *layer)),
        kept(lambda: lora_linear(gated_silu(gate, up), *layer, torch.float64)),
    )
    torch.testing.assert_close(ours, theirs)
    assert (6, 5) not in few
    assert (6, 5) in more


def adapted(name="llama-tied"):
    return tiny.lora(tiny.build(name))  # both factors are random, B too


@pytest.mark.parametrize(
    "name",
    ["llama", "llama-tied", "qwen3", "gemma2", "gemma3", "cohere", "gpt2", "gpt-neox", "granite", "phi3", "olmo2"],
)
def test_lean_in_float32_has_the_model_s_numbers(name):
    model, b = adapted(name), small.batch(3)
    lean = Lean.of(model, torch.float32)
    assert lean is not None

    def run():
        model.zero_grad()
        model(
            input_ids=b.input_ids, attention_mask=b.attention_mask, labels=b.input_ids, use_cache=False
        ).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    theirs = run()
    with lean.on():
        ours = run()
    assert ours.keys() == theirs.keys()
    assert ours
    for key, grad in theirs.items():
        torch.testing.assert_close(ours[key], grad, rtol=1e-4, atol=1e-6, msg=key)


def test_what_is_replaced_in_a_llama():
    model = adapted("llama-tied")
    lean = Lean.of(model, torch.bfloat16)
    kinds = [type(module).__name__ for module, _ in lean.forwards]
    layers = model.config.num_hidden_layers
    assert kinds.count("Linear") == 7 * layers
    assert kinds.count("LlamaRMSNorm") == 2 * layers + 1
    assert kinds.count("LlamaMLP") == layers
    assert {half.dtype for *_, half in lean.parameters} == {torch.bfloat16}
    assert not any(full.requires_grad for *_, full, _ in lean.parameters)


def test_the_model_outside_is_the_one_that_was_given():
    model = adapted("llama-tied")
    before, forwards = dict(model.named_parameters()), [dict(module.__dict__) for module in model.modules()]
    lean = Lean.of(model, torch.bfloat16)
    with pytest.raises(RuntimeError, match="in the middle"), lean.on():
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        assert head.weight is embedding.weight  # tied weights stay tied
        layer = model.get_base_model().model.layers[0].mlp.up_proj
        assert layer.base_layer.weight.dtype == torch.bfloat16
        raise RuntimeError("in the middle")
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert [set(module.__dict__) for module in model.modules()] == [set(old) for old in forwards]


def test_an_adapter_switched_off_is_the_base_model():
    model, b = adapted("llama-tied"), small.batch(2)
    lean = Lean.of(model, torch.float32)
    with torch.no_grad(), model.disable_adapter():
        theirs = model(input_ids=b.input_ids, attention_mask=b.attention_mask).logits
        with lean.on():
            ours = model(input_ids=b.input_ids, attention_mask=b.attention_mask).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_model_that_is_not_the_same_is_left_alone():
    model = adapted("llama")
    norm = model.get_base_model().model.norm
    old = norm.forward
    layer = model.get_base_model().model.layers[0].mlp.up_proj.base_layer
    norm.forward = lambda x: old(x) * (1.0 if layer.weight.dtype == torch.float32 else 3.0)
    assert Lean.of(model, torch.bfloat16) is None
    assert Lean.of(tiny.build("llama"), torch.bfloat16) is None  # all weights train


def one_pass_and_two(factors, holds, temperatures):
    model, b = adapted("llama"), small.batch(3)
    vocab = model.config.vocab_size
    held = []
    for n, (hold, temperature) in enumerate(zip(holds, temperatures, strict=True)):
        where = (hold > 0) & b.predicted()
        log_p = torch.randn((int(where.sum()), vocab), generator=torch.Generator().manual_seed(n)).log_softmax(-1)
        best, ids = log_p.topk(5)
        rest = log_p.exp().scatter(1, ids, 0).sum(1).log()
        held.append(Held(where, SoftTargets(ids, best, rest, temperature)))
    moving = [p for p in model.parameters() if p.requires_grad]
    total, nll = summed_loss(model, b, factors(b), held, holds)
    own = torch.autograd.grad(total, moving)
    theirs, softs = token_losses(model, b, factors(b) > 0, held)
    whole = (theirs * factors(b)).sum() + sum((s * h).sum() for s, h in zip(softs, holds, strict=True))
    return (total, nll, own), (whole, theirs, torch.autograd.grad(whole, moving)), model


@pytest.mark.parametrize("slices", [False, True])
def test_one_pass_over_the_head_is_the_sum_of_the_losses(monkeypatch, slices):
    if slices:
        monkeypatch.setattr("foci.models.losses.SLICE_ELEMENTS", 500)  # five positions at a time
    b = small.batch(3)
    generator = torch.Generator().manual_seed(0)
    holds = [torch.rand(b.input_ids.shape, generator=generator).round() * 0.3, b.predicted() * 0.2]
    (total, nll, own), (whole, theirs, grads), model = one_pass_and_two(
        lambda b: b.columns["w"] * b.predicted() / 7, holds, (1.0, 2.0)
    )
    assert is_frozen(model)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(nll, theirs)
    for one, other in zip(own, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_nothing_to_learn_costs_nothing():
    model, b = adapted("llama"), small.batch(2)
    total, _ = summed_loss(model, b, torch.zeros(b.input_ids.shape), [], [])
    total.backward()
    assert total.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_under_autocast_the_losses_are_those_of_the_model_as_it_is(tmp_path):
    made = []
    for lean in (False, True):
        recorder = Recorder()
        trainer = FocusTrainer(
            tiny.lora(tiny.build("llama")), arguments(tmp_path / str(lean), bf16=True, learning_rate=1e-3),
            plan=Plan([small.Column()]), train_dataset=small.rows(), passes=Passes(lean), callbacks=[recorder],
        )  # fmt: skip
        trainer.train()
        assert (trainer._around.args[0] is not nullcontext) is lean
        made.append(torch.tensor(recorder.losses))
    torch.testing.assert_close(*made, rtol=0.02, atol=0)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_lean_run_of_an_empty_plan_is_the_run_without(tmp_path, accumulation):
    changes = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 4 // accumulation}
    made = []
    for lean in (False, True):
        torch.manual_seed(0)
        model = tiny.lora(tiny.build("llama"))
        trainer = FocusTrainer(model, arguments(tmp_path / str(lean), **changes), plan=Plan(),
                               train_dataset=small.rows(), passes=Passes(lean))  # fmt: skip
        trainer.train()
        assert (trainer._around.args[0] is not nullcontext) is lean
        made.append(model)
    assert_same(*made, tolerance=1e-4)
    assert any(value.any() for name, value in weights(made[0]).items() if "lora_B" in name)


def test_the_embedded_model_is_lean_and_as_accurate_as_autocast():
    """Its passes differ from float32 by no more than those of autocast do, so that training learns the same."""
    loaded = models.load("smollm2-135m", device="cpu")
    torch.manual_seed(0)
    model = models.add_adapter(loaded.model, models.Adapter())
    lean = Lean.of(model, torch.bfloat16)
    assert lean is not None
    ids = torch.randint(5, 40000, (2, 12), generator=torch.Generator().manual_seed(0))

    def logits(enabled):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            return model(input_ids=ids, use_cache=False).logits.float()

    exact, cast = logits(False), logits(True)
    with lean.on():
        ours = logits(True)
        padded = Batch(ids, torch.tensor([[1] * 12, [1] * 9 + [0] * 3]), ids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            token_nll(model, padded)  # the check of padding was made before, on the model as it is
    assert (ours - exact).norm() <= 1.2 * (cast - exact).norm()
