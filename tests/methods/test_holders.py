"""The earlier methods that hold weights: RecAdam and L2-SP, held to values worked by hand."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import TrainerControl, TrainerState

import small
import tiny
from earlier import added, distance, moved, wrapped
from foci.focus import HoldsWeights
from foci.methods.l2_sp import L2Sp
from foci.methods.rec_adam import RecAdam, annealing
from foci.training.anchor import Anchor, HoldCallback
from training import arguments, trained, weights


class OneWeight(nn.Module):
    """theta, where a language model would have its first layer."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.model = nn.Module()
        layer = nn.Module()
        layer.q = nn.Linear(1, 1, bias=False)
        self.model.layers = nn.ModuleList([layer])
        self.model.config = None
        nn.init.constant_(layer.q.weight, theta)

    def forward(self, x):
        return self.model.layers[0].q(x)


def stepped(net: nn.Module, method: HoldsWeights, gradients: dict[str, float], step: int, folder: Path) -> None:
    """One step of Adam (lr 0.1) on given gradients, under the callback that paces and pulls."""
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.1)
    callback = HoldCallback([method], Anchor(net))
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, next(g for part, g in gradients.items() if part in name))
    state = TrainerState(global_step=step)
    callback.on_pre_optimizer_step(arguments(folder), state, TrainerControl(), optimizer=optimizer)
    optimizer.step()
    callback.on_optimizer_step(arguments(folder), state, TrainerControl(), optimizer=optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


# --- RecAdam ---


def test_annealing_by_hand():
    """t0 = 250, k = 0.5: e^2 = 7.389056 at 4 updates from the middle."""
    assert annealing(250, 0.5, 250) == 0.5
    assert annealing(246, 0.5, 250) == pytest.approx(1 / (1 + 7.38905609893065))
    assert annealing(254, 0.5, 250) == pytest.approx(7.38905609893065 / (1 + 7.38905609893065))
    assert annealing(0, 0.5, 10**6) == 0.0  # no overflow
    assert annealing(10**6, 0.5, 250) == 1.0


def test_the_paper_counts_updates_from_one():
    method = RecAdam()
    assert (method.k, method.t0, method.gamma) == (0.5, 250, 5000.0)
    assert method.pace(249) == 0.5
    assert method.pull(249) == {"*": 2500.0}
    assert method.pull(253)["*"] == pytest.approx(5000 / (1 + 7.38905609893065))


def test_one_step_by_hand(tmp_path):
    """t = t0: lambda = 1/2. Adam's first step is lr * sign(g): 3 - 0.1 * 0.5 = 2.95.

    The pull is 0.1 * 0.5 * 4 = 0.2 of the distance 0.05: 2.95 + 0.01.
    """
    net = OneWeight(3.0)
    stepped(net, RecAdam(k=0.5, t0=2, gamma=4.0), {"q": 2.0}, 1, tmp_path)
    assert net.model.layers[0].q.weight.item() == pytest.approx(2.96, abs=1e-6)


def adapted() -> PeftModel:
    """s B A on one weight: A = 1, B = 0, s = alpha / r = 2."""
    net = get_peft_model(OneWeight(3.0), LoraConfig(r=1, lora_alpha=2, target_modules=["q"]))
    layer = net.get_submodule("base_model.model.model.layers.0.q")
    nn.init.constant_(layer.lora_A["default"].weight, 1.0)
    nn.init.constant_(layer.lora_B["default"].weight, 0.0)
    return net


def test_one_step_by_hand_with_an_adapter(tmp_path):
    """Gradients 1 of A and -1 of B: Adam at half pace gives A = 0.95, B = 0.05, so B A = 0.0475 (it was 0).

    The pull goes down the gradient of half (s B A)^2, times 0.1 * 0.5 * 4 = 0.2: with s^2 = 4,
    A - 0.8 * B * B A = 0.95 - 0.0019 and B - 0.8 * B A * A = 0.05 - 0.0361.
    """
    net = adapted()
    stepped(net, RecAdam(k=0.5, t0=2, gamma=4.0), {"lora_A": 1.0, "lora_B": -1.0}, 1, tmp_path)
    layer = net.get_submodule("base_model.model.model.layers.0.q")
    assert layer.lora_A["default"].weight.item() == pytest.approx(0.9481, abs=1e-6)
    assert layer.lora_B["default"].weight.item() == pytest.approx(0.0139, abs=1e-6)
    assert layer.base_layer.weight.item() == 3.0


class Published(HoldsWeights):
    """The grouping of the published code of arXiv 2407.16920: parameters without the model's type in their name are
    neither annealed nor pulled, and no LoRA weight has it."""

    def __init__(self, net: nn.Module, model_type: str) -> None:
        self.held = [n for n, p in net.named_parameters() if p.requires_grad and model_type in n]

    def pull(self, step):
        return {name: torch.tensor(5000.0) for name in self.held}

    def pace(self, step):
        return RecAdam().pace(step) if self.held else 1.0


def test_the_published_grouping_is_plain_adam_and_ours_pulls(tmp_path):
    rows, method = small.rows(), RecAdam(k=0.5, t0=8, gamma=50.0)
    start = added(wrapped())

    def distance_under(make):
        net = wrapped()
        trained(tmp_path, rows, make(net), start=net, max_steps=9)
        return moved(net, start)

    plain = distance_under(lambda net: [])
    assert distance_under(lambda net: [Published(net, "llama")]) == plain
    assert 0 < distance_under(lambda net: [method]) < 0.3 * plain


def test_recadam_holds_first_and_learns_after_t0(tmp_path):
    rows = small.rows()
    method = RecAdam(k=2.0, t0=6, gamma=50.0)
    start = weights(tiny.build("llama"))
    far = []
    for steps, methods in ((7, [method]), (7, []), (14, [method]), (14, [])):
        net = tiny.build("llama")
        settings = {"max_steps": steps, "lr_scheduler_type": "constant"}
        trained(tmp_path, rows, methods, start=net, **settings)
        far.append(distance(net, start))
    assert far[0] < 0.3 * far[1]
    assert far[2] > 0.4 * far[3]


def test_a_run_that_ends_before_t0_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"t0 = 250 updates, but this run has 40.*2\.51e-46.*\{rec_adam: \{t0: 10\}\}"):
        RecAdam().check_steps(40)
    with pytest.raises(ValueError, match="this run has 250"):
        RecAdam().check_steps(250)
    RecAdam().check_steps(251)


def test_gamma_and_a_large_learning_rate_are_refused_by_the_anchor(tmp_path):
    with pytest.raises(ValueError, match=r"RecAdam\(.*times strength reaches 4\d.* divide the strength .*gamma"):
        trained(tmp_path, small.rows(), [RecAdam(t0=5)])


def test_a_pull_is_as_strong_as_its_own_block_is_fast(tmp_path):
    """A tenth of the rate in the block that is pulled by 50: 0.05 x 0.1 x 50 = 0.25, which does not jump."""
    slow = small.Scaled({"layers.0": 0.1})
    settings = {"learning_rate": 0.05, "optim": "sgd", "max_steps": 2, "lr_scheduler_type": "constant"}
    trained(tmp_path, small.rows(), [slow, small.Pulled(50.0, "layers.0")], **settings)
    with pytest.raises(ValueError, match=r"reaches 2\.5 in update 1"):
        trained(tmp_path, small.rows(), [small.Pulled(50.0, "layers.0")], **settings)


def test_a_pull_that_a_warm_up_makes_too_large_is_refused_before_the_first_update(tmp_path):
    """The rate rises from 0 to 0.01 in three updates, so that the first one alone would do."""
    start = tiny.build("llama")
    before = weights(start)
    with pytest.raises(ValueError, match=r"reaches 1\.5 in update 4, .* by at least 1\.5"):
        trained(tmp_path, small.rows(), [small.Pulled(150.0)], start=start, max_steps=6, warmup_steps=3)
    assert all(torch.equal(before[name], p) for name, p in start.named_parameters())


@pytest.mark.parametrize("wrong", [{"k": 0.0}, {"t0": 0}, {"gamma": 0.0}, {"k": float("nan")}])
def test_recadam_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"rec_adam expected .* the paper's are 0\.5, 250 and 5000"):
        RecAdam(**wrong)


# --- L2-SP ---


def test_l2_sp_by_hand(tmp_path):
    """3 - 0.1 * sign(g) = 2.9, then back by lr * strength = 0.1 * 2 = 0.2 of the distance 0.1."""
    net = OneWeight(3.0)
    stepped(net, L2Sp(strength=2.0), {"q": 2.0}, 0, tmp_path)
    assert net.model.layers[0].q.weight.item() == pytest.approx(2.92, abs=1e-6)
    assert L2Sp().strength == 0.1


@pytest.mark.parametrize("lora", [False, True])
def test_l2_sp_shortens_the_way(lora, tmp_path):
    far = {}
    for strength in (0.0, 20.0, 60.0):
        net = wrapped() if lora else tiny.build("llama")
        start = added(net) if lora else weights(net)
        trained(tmp_path, small.rows(), [L2Sp(strength)] if strength else [], start=net)
        far[strength] = moved(net, start) if lora else distance(net, start)
    assert far[0.0] > 1.1 * far[20.0] > 1.1 * far[60.0] > 0


def test_l2_sp_refuses_a_strength_that_means_nothing():
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="l2_sp's strength is finite and above 0"):
            L2Sp(wrong)
