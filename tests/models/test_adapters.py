"""Each adapter of PEFT learns, leaves the base weights alone, and can be saved, merged and pulled to its start."""

import pytest
import torch
from peft import PeftModel

import small
import tiny
from foci import models
from foci.methods.l2_sp import L2Sp
from foci.models import Adapter, adapters
from training import trained, weights

IDS = torch.tensor([[2, 50, 7, 31, 96, 12, 64, 5]])


@pytest.mark.parametrize("kind", models.ADAPTERS)
def test_an_adapter_learns_leaves_the_base_alone_and_can_be_merged_and_loaded(kind, tmp_path):
    made = Adapter(type=kind) if kind == "osf" else Adapter(type=kind, r=4, alpha=8)
    torch.manual_seed(0)
    net = models.add_adapter(tiny.build("llama"), made)
    before = weights(net)
    asked = {name for name, p in net.named_parameters() if p.requires_grad}
    _, losses = trained(tmp_path / "run", small.rows(), start=net, num_train_epochs=4)
    assert losses[-1] < losses[0] - 0.3
    after = weights(net.eval())
    assert {name for name in after if not torch.equal(after[name], before[name])} == asked
    logits = net(IDS).logits.detach()
    net.save_pretrained(tmp_path / "adapter")
    with adapters.peft_quiet():
        again = PeftModel.from_pretrained(tiny.build("llama"), tmp_path / "adapter").eval()
    torch.testing.assert_close(again(IDS).logits, logits, atol=1e-3, rtol=1e-3)
    merged = net.merge_and_unload()
    torch.testing.assert_close(merged(IDS).logits, logits, atol=1e-3, rtol=1e-3)
    assert not isinstance(merged, PeftModel)


@pytest.mark.parametrize("kind", models.ADAPTERS)
def test_every_adapter_is_held_by_a_pull(kind, tmp_path):
    far = []
    for methods in ([], [L2Sp(60.0)]):
        torch.manual_seed(0)
        made = Adapter(type=kind) if kind == "osf" else Adapter(type=kind, r=4, alpha=2)
        net = models.add_adapter(tiny.build("llama"), made)
        before = net(IDS).logits.detach()
        trained(tmp_path, small.rows(), methods, start=net)
        far.append(float((net.eval()(IDS).logits - before).detach().square().mean()))
    assert 0 < far[1] < 0.8 * far[0]
