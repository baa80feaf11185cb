"""Influence in models that FSDP2 shards over two processes, and in models that accelerate puts on several devices."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

import tiny
from foci.gradients import influence
from foci.gradients.influence import token_influence
from foci.gradients.inner_step import InnerStep
from paths import HELPERS
from sharded_processes import LAYOUTS, SLICED, pair


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """The results of both processes."""
    out = tmp_path_factory.mktemp("sharded")
    script = HELPERS / "sharded_processes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(out)], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("layout", [*LAYOUTS, *(f"{name}, in slices" for name in SLICED)])
def test_influence_is_that_of_the_whole_model(layout, found):
    """The same arithmetic but for the norm, which is summed over processes: eps may differ in its last digit, which the
    rounding of `difference` makes up to 2e-4."""
    for process in found:
        for inner, got in process["influence"][layout].items():
            # The whole model takes double backward where differences at several lengths disagree by more than 2e-3.
            assert got["off"] < (1e-2 if layout == "head alone trained" else 5e-4), (inner, got)
            assert got["cosine"] > 0.9999, (inner, got)
            assert got["sharded"] == 1, (inner, got)
            assert got["weights"], "the weights are not as before"
            assert got["grad"], ".grad is not as before"


def test_an_error_on_the_way_leaves_the_weights_and_the_next_influence_is_right(found):
    assert [process["stopped"] for process in found] == [True, True]


REFUSED = {
    "rows": "must pass the same tensors, got different input_ids, labels on some; gather the rows",
    "later": "got different later labels on some",
    "weights": "got different weights on some",
    "no weight on one": "got different weights on some",
    "rate": "got different step on some",
    "unroll": "mode 'unroll' .*sharded by FSDP2.*use mode='difference'",
    "half": "'the model' in float32 .*got param_dtype=torch.bfloat16",
    "silent": r"got set_requires_gradient_sync\(False\)",
    "summed": "got gradient_divide_factor=1.0",
    "waiting": "got gradients that wait to be averaged",
    "flat": "1 modules of FSDP1 around LlamaForCausalLM; shard the model by .*fully_shard",
    "layers without root": "none that contains 'model.layers.1' and the others; call fully_shard on the model last",
    "hooked": "got hooks on 1 parameters, 'lm_head.weight' first; remove them",
    "tensor parallel": "'lm_head.weight' must be whole or split by FSDP2 alone, got .*Shard.*tensor parallelism",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_wrong_is_refused_on_every_process(case, found):
    for process in found:
        assert re.search(REFUSED[case], process["refused"][case])
    assert set(found[0]["refused"]) == set(REFUSED)


def test_a_model_over_several_devices(device):
    """Layer 0 and the embedding on the CPU, the rest on `FOCI_TEST_DEVICE`, hooked as accelerate's device maps do."""
    if torch.device(device).type == "cpu":
        pytest.skip("on the CPU alone every tensor is where it should be; set FOCI_TEST_DEVICE")
    batch, later, weights = pair()
    model = tiny.build("llama")
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": device, "model.layers.0": "cpu"}
    places |= dict.fromkeys(("model.layers.1", "model.norm", "lm_head"), device)
    for name, place in places.items():
        part = model.get_submodule(name).to(place)
        add_hook_to_module(part, AlignDevicesHook(execution_device=place))
    for inner, rate in (("sgd", 1e-2), ("adam", 1e-4)):
        expected = token_influence(tiny.build("llama"), batch, later, weights, lr=rate, inner=inner)
        got = token_influence(model, batch, later, weights, lr=rate, inner=inner)
        assert (got - expected).norm() < 5e-3 * expected.norm()
        assert got.device == batch.input_ids.device


def test_a_dispatched_model():
    batch, later, weights = pair()
    expected = token_influence(tiny.build("llama"), batch, later, weights, lr=1e-2)
    places = {"model": "cpu", "lm_head": "cpu"}
    model = dispatch_model(tiny.build("llama"), places, main_device="cpu", force_hooks=True)
    assert torch.equal(token_influence(model, batch, later, weights, lr=1e-2), expected)


def test_an_offloaded_model_is_refused_where_it_is_trained(monkeypatch):
    batch, later, weights = pair()
    expected_of, model = tiny.build("llama"), tiny.build("llama")
    for each in (expected_of, model):
        each.model.layers[0].requires_grad_(False)
    expected = token_influence(expected_of, batch, later, weights, lr=1e-2)
    cpu_offload(model.model.layers[0], execution_device="cpu")
    assert any(p.is_meta for p in model.parameters())
    assert torch.equal(token_influence(model, batch, later, weights, lr=1e-2), expected)
    cpu_offload(model.model.layers[1], execution_device="cpu")
    monkeypatch.setattr(influence, "token_nll", lambda *_: pytest.fail("something ran"))
    words = (
        "got 9 of 12 that are kept elsewhere.*'model.layers.1.self_attn.q_proj.weight' first; load those on a device"
    )
    with pytest.raises(ValueError, match=words):
        token_influence(model, batch, later, weights, lr=1e-2)
    with pytest.raises(ValueError, match=words):
        influence.gradient_alignment(model, batch, later, weights, InnerStep(1e-2))
