"""Where adapters sit in mixtures of experts, hybrids and models that share blocks; what they leave out is said."""

import pytest
import torch
from peft import PeftModel
from torch import nn

import families
import tiny
from foci import models
from foci.models import Adapter, adapters, targets

IDS = torch.tensor([[2, 50, 7, 31, 96, 12, 64, 5, 3, 4, 9]])


def logits(model: nn.Module) -> torch.Tensor:
    return model(IDS, use_cache=False).logits.detach()


def trained(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_trained_adapter_loads_and_merges_to_the_same_model(name, tmp_path):
    base = families.build(name)
    before = logits(base)
    net = models.add_adapter(base, Adapter(r=4, alpha=8))
    assert not targets.dead_layers(net)
    wanted = logits(trained(net))
    assert (wanted - before).abs().max() > 0.5
    net.save_pretrained(tmp_path)
    with adapters.peft_quiet():
        again = PeftModel.from_pretrained(families.build(name), tmp_path).eval()
    torch.testing.assert_close(logits(again), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(again.merge_and_unload()), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "deepseek_v3", "falcon_h1"])
def test_the_adapter_of_a_model_with_a_frozen_block_loads(name, tmp_path):
    net = models.add_adapter(families.build(name), Adapter(r=4, alpha=8))
    before = {n: p.detach().clone() for n, p in net.named_parameters() if p.requires_grad}
    net = models.without_adapters(net, {"layers.0"})
    left = {n: p for n, p in net.named_parameters() if p.requires_grad}
    assert {models.block_of(n) for n in left} == {"layers.1"}
    assert all(torch.equal(p, before[n]) for n, p in left.items())
    wanted = logits(trained(net))
    net.save_pretrained(tmp_path)
    with adapters.peft_quiet():
        again = PeftModel.from_pretrained(families.build(name), tmp_path).eval()
    torch.testing.assert_close(logits(again), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "at_least", "left"),
    [
        ("qwen3_moe", 0.97, {"mlp.gate"}),
        ("qwen2_moe", 0.97, {"mlp.gate"}),
        ("deepseek_v3", 0.97, {"mlp.gate"}),
        ("granitemoe", 0.97, {"block_sparse_moe.router"}),
        ("gpt_oss", 0.95, {"mlp.router", "mlp.experts.gate_up_proj_bias", "mlp.experts.down_proj_bias"}),
        ("llama4_text", 0.97, {"feed_forward.router"}),
        ("falcon_h1", 0.8, {"mamba.out_proj", "mamba.conv1d"}),
        ("opt", 1.0, set()),
    ],
)
def test_experts_are_adapted_and_what_is_left_out_is_named(name, at_least, left):
    found = targets.coverage(models.add_adapter(families.build(name), Adapter(r=4)))
    assert found.share >= at_least
    assert set(found.left_out) == left
    assert bool(found.words()) == (found.share < 0.995)
    assert sum(found.left_out.values()) == pytest.approx(1 - found.share)


def test_an_adapter_that_cannot_sit_in_experts_says_so():
    """With dropout, PEFT adapts no parameter: half and more of the weights stay as they are."""
    for made in (Adapter(r=4, dropout=0.1), Adapter(type="dora", r=4), Adapter(type="osf")):
        found = targets.coverage(models.add_adapter(families.build("gpt_oss"), made))
        assert found.share < 0.5
        assert next(iter(found.left_out)) == "mlp.experts.gate_up_proj"
        assert found.words().startswith(f"the adapter reaches {found.share:.0%} of the matrix weights")
        assert "mlp.experts.gate_up_proj (" in found.words()


def test_the_share_by_hand():
    """Llama: all; with its lower layer's adapters removed: half. Without adapter all weights train."""
    assert targets.coverage(tiny.build("llama")).share == 1
    net = models.add_adapter(tiny.build("llama"), Adapter(r=4))
    assert targets.coverage(net) == targets.Coverage(1.0, {})
    half = targets.coverage(models.without_adapters(net, {"layers.0"}))
    assert half.share == pytest.approx(0.5)
    assert half.left_out["mlp.up_proj"] == pytest.approx(2048 / (2 * (2 * 1024 + 2 * 512 + 3 * 2048)))


class Choosing(nn.Module):
    """An MLP beside a linear layer that only chooses."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.choice = inner, nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * (1 + self.choice(x).argmax(-1, keepdim=True))


def test_a_layer_that_gets_no_gradient_gets_no_adapter():
    model = tiny.build("llama")
    for layer in model.model.layers:
        layer.mlp = Choosing(layer.mlp)
    net = models.add_adapter(model, Adapter(r=4))
    assert list(targets.coverage(net).left_out) == ["mlp.choice"]


def test_a_model_without_a_layer_that_can_be_adapted_is_refused(monkeypatch):
    monkeypatch.setattr(targets, "linear_layers", lambda _: [])
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no layer that an adapter.*\(adapter: null\)"):
        models.add_adapter(tiny.build("llama"), Adapter())
