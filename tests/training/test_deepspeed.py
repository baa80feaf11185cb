"""DeepSpeed's ZeRO stages 1 and 2 make the updates of one process; what they would make otherwise is refused."""

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

import several
import small
import tiny
from deepspeed_processes import CASES, configuration, train_all, trained
from foci import FocusTrainer, Plan
from foci.models.sharding import shard
from foci.training import deepspeed
from training import arguments

COMPARED = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="needs DeepSpeed (DS_BUILD_OPS=0 pip install deepspeed)"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder with what two processes made under DeepSpeed."""
    folder = tmp_path_factory.mktemp("deepspeed")
    several.called(train_all, folder, folder=folder, count=2)
    return folder


def assert_same(path, one):
    weights, losses = torch.load(path, weights_only=True)
    assert weights.keys() == one[0].keys()
    for name, expected in one[0].items():
        torch.testing.assert_close(weights[name], expected, atol=1e-5, rtol=0)
    assert losses == pytest.approx(one[1][-len(losses) :], abs=1e-5)


@COMPARED
@pytest.mark.parametrize("name", CASES)
def test_two_processes_under_deepspeed_make_the_updates_of_one_without_it(name, found, tmp_path):
    assert_same(found / f"{name}.pt", trained(name, tmp_path))


@COMPARED
def test_a_run_goes_on_under_deepspeed_from_its_checkpoint(found, tmp_path):
    assert_same(found / "gone on.pt", trained("accumulated, AdamW", tmp_path))


@COMPARED
def test_a_checkpoint_of_deepspeed_is_refused_without_it(found, tmp_path):
    with pytest.raises(ValueError, match=r"DeepSpeed wrote the checkpoint .*go on with deepspeed"):
        trained("accumulated, AdamW", tmp_path, resume=found / "written" / "step-4")


def asking(folder, config, **changes):
    """Arguments as they are where DeepSpeed is asked for, without DeepSpeed."""
    found = arguments(folder, **changes)
    found.deepspeed_plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(config=config))
    return found


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (configuration(3), r"ZeRO stages 1 and 2, got stage 3; set zero_optimization.stage to 2, or .*FSDP2"),
        (configuration(0), "got stage 0"),
        (configuration(zero_optimization=None), "got stage 0"),
        (
            configuration(gradient_clipping=None),
            r'clips at 1.0 whatever max_grad_norm is; set "gradient_clipping": "auto"',
        ),
        (configuration(optimizer={"type": "AdamW"}), "setting 'optimizer' has not been tried .*TrainingArguments"),
        (configuration(bf16={"enabled": True}), "setting 'bf16' has not been tried"),
        (configuration(zero_optimization={"stage": 2, "offload_optimizer": {"device": "cpu"}}), "offload_optimizer"),
        (configuration(zero_optimization={"stage": 2, "zero_quantized_gradients": True}), "zero_quantized_gradients"),
    ],
)
def test_settings_that_were_not_tried_are_refused(config, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        FocusTrainer(
            tiny.build("llama"), asking(tmp_path, config), plan=Plan([small.Column()]), train_dataset=small.rows()
        )


def test_an_empty_plan_is_the_trainers_own(tmp_path):
    deepspeed.check(Plan(), asking(tmp_path, configuration(3), bf16=True), tiny.build("llama"))


def test_what_is_off_is_no_setting(tmp_path):
    off = {"stage": 2, "offload_optimizer": {"device": "none"}, "stage3_gather_16bit_weights_on_model_save": False}
    config = configuration(zero_optimization=off, fp16={"enabled": False}, steps_per_print=float("inf"))
    deepspeed.check(Plan([small.Column()]), asking(tmp_path, config), tiny.build("llama"))


@pytest.mark.parametrize(
    ("method", "model", "changes", "words"),
    [
        (small.Pulled(), torch.float32, {}, r"Pulled.* pulls weights after .*drop the method"),
        (small.Column(), torch.float32, {"bf16": True}, r"bf16=True makes DeepSpeed round .*train in float32"),
        (small.Column(), torch.float64, {}, r"keeps the weights .* in float32, got 'model.embed.*float64"),
    ],
)
def test_what_deepspeed_would_change_is_refused(method, model, changes, words, tmp_path):
    args = asking(tmp_path, configuration(), **changes)
    with pytest.raises(ValueError, match=words):
        FocusTrainer(tiny.build("llama", dtype=model), args, plan=Plan([method]), train_dataset=small.rows())


def test_an_optimiser_that_looks_at_matrices_is_refused():
    weights = [torch.nn.Parameter(torch.ones(2, 2))]
    deepspeed.check_optimizer(torch.optim.AdamW(weights))
    with pytest.raises(ValueError, match=r"got Adafactor: .*set optim to adamw_torch or sgd"):
        deepspeed.check_optimizer(torch.optim.Adafactor(weights))


def test_a_model_that_fsdp_shares_is_refused(tmp_path):
    several.called(refuse_sharded, tmp_path, folder=tmp_path, count=2)


def refuse_sharded(folder):
    """Asks for DeepSpeed with a model that is shared already; called in two processes."""
    args, model = asking(folder, configuration()), tiny.build("llama")
    assert args.device.type == "cpu"  # connects the processes
    shard(model)
    with pytest.raises(ValueError, match=r"FSDP2 shards this .* already"):
        deepspeed.check(Plan([small.Column()]), args, model)
