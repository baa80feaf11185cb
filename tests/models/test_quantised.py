"""Bases in 4 and 8 bits, beside a float32 model that holds the numbers they stand for; and whole runs upon them."""

import importlib.util
import math
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

import runs
import several
import tiny
from foci import models
from foci.config.run import load_run, of_settings
from foci.focus import IGNORED, Batch, Context, Row
from foci.gradients.influence import token_influence
from foci.learn import save
from foci.learn.run import learn
from foci.meta.config import MetaRun
from foci.methods.ewc import Ewc
from foci.methods.grad_profile import GradProfile
from foci.methods.influence import Influence
from foci.models import targets
from foci.models.loading import load_weights
from foci.models.quantised import arguments, count, is_quantised
from foci.models.saved_adapter import with_adapter
from foci.probes import answer, read_answers, read_probes
from foci.system.files import read_json

bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install 'foci[bits]'")
IDS = torch.tensor([[1, 7, 9, 30, 31, 8, 12, 5, 2, 40], [1, 60, 61, 62, 9, 8, 7, 6, 5, 4]])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("base") / "tiny", "llama-tied")


def in_bits(base, bits: int) -> nn.Module:
    return models.load(str(base), device="cpu", bits=bits).model


def adapted(base, bits: int, kind: str = "lora") -> nn.Module:
    torch.manual_seed(3)
    model = models.add_adapter(in_bits(base, bits), models.Adapter(type=kind, r=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def logits(model: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The numbers that layers in few bits stand for, by bitsandbytes for 4 bits, by hand for 8."""
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            found[name] = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        elif isinstance(layer, bitsandbytes.nn.Linear8bitLt):
            found[name] = layer.weight.data.double().mul(layer.weight.SCB.double()[:, None] / 127).float()
    return found


def reference(base, model: nn.Module) -> nn.Module:
    """The float32 model of these numbers."""
    whole = models.load(str(base), device="cpu").model
    for name, weight in weights(model).items():
        layer = whole.get_submodule(name.removesuffix(".base_layer"))
        layer.weight.data = weight.T if isinstance(layer, Conv1D) else weight
    return whole


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma2", "phi3", "qwen2"])
def test_it_is_the_float32_model_of_the_numbers_that_it_stores(name, bits, tmp_path):
    base = tiny.save_model(tmp_path / name, name)
    model, untouched = in_bits(base, bits), models.load(str(base), device="cpu").model
    assert len(weights(model)) == len(targets.linear_layers(untouched))  # all but the head
    torch.testing.assert_close(logits(model), logits(reference(base, model)), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(logits(model.train()), logits(model.eval()))
    assert (logits(model) - logits(untouched)).abs().max() > 1e-4  # it is not the model of the files


def test_a_weight_in_8_bits_by_hand(base):
    """Each row times 127 over its largest, rounded; bitsandbytes takes float16 numbers."""
    weight = models.load(str(base), device="cpu").model.model.layers[0].mlp.up_proj.weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 127
    found = weights(in_bits(base, 8))["model.layers.0.mlp.up_proj"]
    same = (found / scale).round() == (weight / scale).round()
    assert same.float().mean() > 0.97
    torch.testing.assert_close(found, (weight / scale).round() * scale, atol=1.01 * scale.max().item(), rtol=0)
    torch.testing.assert_close(found[same], ((weight / scale).round() * scale)[same], atol=0, rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_token_is_read_alike_whatever_follows_and_whatever_stands_beside_it(base, bits):
    """The outlier columns of LLM.int8() would make both depend on the whole batch."""
    model = in_bits(base, bits)
    for layer in model.model.layers:  # some inputs are beyond 6.0, from which on a column is an outlier
        layer.input_layernorm.weight.data *= 4
    alone, together = logits(model, IDS[1:]), logits(model)
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=1e-4)
    other = IDS.clone()
    other[1, -1] = 40
    torch.testing.assert_close(logits(model, other)[1, :-1], together[1, :-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_asking_changes_nothing_about_training(tmp_path, bits):
    """A 4-bit layer on a CPU with AVX512-BF16 would repack its weight, and pass no gradient on from then on."""
    folder = tiny.save_model(tmp_path / "wide")
    shape = {"vocab_size": tiny.VOCAB, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=4)).save_pretrained(folder)
    model = adapted(folder, bits)
    before = gradients(model)
    assert len(before) == 28
    asked = logits(model.eval())
    assert torch.equal(asked, logits(model.eval()))
    torch.testing.assert_close(logits(model.train()), asked)
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, before[name]), name
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_gradient_is_that_of_the_float32_model(base, bits, kind):
    model = adapted(base, bits, kind)
    whole = models.add_adapter(reference(base, model.get_base_model()), models.Adapter(type=kind, r=4))
    whole.load_state_dict({n: p for n, p in model.state_dict().items() if "lora" in n}, strict=False)
    found, expected = gradients(model), gradients(whole)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "qwen2"])
def test_in_bfloat16_it_is_the_float32_model_within_its_rounding(name, bits, tmp_path):
    """Autocast chooses what is computed in, and leaves the base as it was, the biases of the last two too."""
    model = in_bits(tiny.save_model(tmp_path / name, name), bits)
    assert name == "llama-tied" or any(key.endswith("proj.bias") for key, _ in model.named_parameters())
    before, exact = models.fingerprint(model), logits(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = logits(model)
    assert 0 < (half - exact).abs().max() < 0.05 * exact.abs().max()
    assert models.fingerprint(model) == before
    assert torch.equal(logits(model), exact)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_influence_of_an_adapter_is_the_double_backward(base, bits):
    generator = torch.Generator().manual_seed(0)
    lines = [tuple(torch.randint(2, 97, (length,), generator=generator).tolist()) for length in (9, 6, 5)]
    batch = Batch.of([Row("a", lines[0]), Row("b", lines[1])], tiny.PAD)
    later = Batch.of([Row("c", lines[2])], tiny.PAD)
    later.labels[:, :3] = IGNORED
    weights = torch.rand(batch.input_ids.shape, generator=generator) + 0.1
    model = adapted(base, bits)
    found = token_influence(model, batch, later, weights, lr=1e-2)
    truth = token_influence(model, batch, later, weights, lr=1e-2, mode="unroll")
    assert truth.abs().max() > 1e-5
    assert (found - truth).norm() / truth.norm() < 1e-2


@pytest.mark.parametrize("bits", [4, 8])
def test_the_fingerprint_is_its_own_and_stays(base, bits):
    found = [models.load(str(base), device="cpu", bits=bits) for _ in range(2)]
    assert found[0].fingerprint == found[1].fingerprint != models.load(str(base), device="cpu").fingerprint
    assert is_quantised(found[0].model)
    assert sum(map(count, found[0].model.parameters())) == sum(p.numel() for p in tiny.build("llama-tied",
                                                              vocab=tiny.VOCAB).parameters())  # fmt: skip
    assert models.coverage(models.add_adapter(found[0].model, models.Adapter(r=2))).share == 1.0


def test_a_scale_counts_in_the_fingerprint(base):
    """All scales of a layer stand beside its weight; twice the scale is another model."""
    for bits in (4, 8):
        model = in_bits(base, bits)
        before = models.fingerprint(model)
        weight = model.model.layers[0].mlp.up_proj.weight
        (weight.quant_state.state2.absmax if bits == 4 else weight.SCB).mul_(2)
        assert models.fingerprint(model) != before


@pytest.mark.parametrize("method", [Ewc(), GradProfile(), Influence(pairs="none.jsonl")])
def test_methods_that_move_all_weights_refuse_few_bits(base, method, tmp_path):
    rows = [Row("a", (1, 5, 6, 7))]
    context = Context(in_bits(base, 4), tiny.tokenizer(), rows, tmp_path, 0)
    with pytest.raises(ValueError, match=r"needs the gradients of all weights.*leave model.bits out"):
        method.prepare(context)


# ------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module", params=[4, 8])
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"bits{request.param}")
    dtype = {4: "bfloat16", 8: "float32"}[request.param]
    (folder / "things").mkdir()
    things = runs.material(folder / "things")
    arms = {"plain": [], "held": ["oracle", {"lwf": {"strength": 1.0, "teacher": "live"}}]}
    run = load_run(runs.run_file(folder, things, model={"bits": request.param, "dtype": dtype}, arms=arms))
    return run, learn(run)


def test_a_run_learns_and_keeps_the_adapter_alone(finished):
    run, summary = finished
    for name, found in summary["arms"].items():
        assert found["loss"]["last"] < found["loss"]["first"], name
        assert f"in {run.model.bits} bits; foci export merges" in found["notes"][0]
        assert not (run.output / "arms" / name / "model").exists()
        assert (run.output / "arms" / name / "adapter" / "adapter_model.safetensors").is_file()


def test_the_saved_adapter_answers_upon_the_base_in_as_many_bits_as_the_run_did(finished):
    run, _ = finished
    place = run.output / "arms" / "plain"
    model = with_adapter(load_weights(run.model.name, bits=run.model.bits), place / "adapter", "it").eval()
    probes = [*read_probes(run.probes.learn, "learn"), *read_probes(run.probes.retain, "retain")]
    after = {a.probe_id: a for a in read_answers(place / "probes" / "step-000009.parquet")}
    for found in answer(model, tiny.tokenizer(), probes):
        assert found.nll == pytest.approx(after[found.probe_id].nll, abs=1e-4)


def test_the_saved_adapter_is_tried_upon_the_base_that_is_there(finished, tmp_path, monkeypatch):
    """A second base on the same GPU would take as much memory as the first."""
    run, _ = finished

    def loads(*_, **__):
        raise AssertionError("the base was loaded again")

    monkeypatch.setattr(save, "load_weights", loads)
    again = of_settings(run.model_dump(mode="json") | {"output": str(tmp_path / "again"), "arms": {"plain": []}})
    notes = learn(again)["arms"]["plain"]["notes"]
    assert not [note for note in notes if "does not answer" in note or "cannot be loaded" in note]
    assert (again.output / "adapter" / "adapter_model.safetensors").is_file()


def test_check_measures_such_a_run(finished, capsys):
    run, _ = finished
    said = runs.told(["check", run.output.parent / "small.yaml"], capsys)
    assert "32,928" in said  # weights, not the bytes that hold them
    assert "activations" in said


def test_export_merges_and_asks_again_and_the_adapter_answers_the_same(finished, tmp_path, capsys):
    run, _ = finished
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs.told(["export", run.output, "--arm", "plain", "--out", tmp_path / "whole"], capsys)
        runs.told(["export", run.output, "--arm", "plain", "--adapter", "--out", tmp_path / "adapter"], capsys)
    assert not is_quantised(models.load(str(tmp_path / "whole"), device="cpu").model)
    _, check = read_json(tmp_path / "adapter" / "export.json")["checks"]
    assert check["same"] == check["asked"] > 5
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert f"BitsAndBytesConfig(load_in_{run.model.bits}bit=True" in card
    assert "quantization_config=bits" in card
    assert ("also rounds what flows into" in card) == (run.model.bits == 8)


def test_the_slider_says_what_it_cannot_do(finished, capsys):
    run, _ = finished
    assert f"weights in {run.model.bits} bits" in runs.refused(["slide", run.output], capsys)


def test_a_stopped_run_goes_on_to_the_same_weights(finished):
    """A finished run, cut back to its checkpoint of update 6."""
    run, summary = finished
    for arm in ("plain", "held"):
        (run.output / "arms" / arm / "arm.json").unlink()
        shutil.rmtree(run.output / "arms" / arm / "checkpoints" / "step-8")
    found = learn(run, resume=True)
    for arm in ("plain", "held"):
        assert found["arms"][arm]["weights_sha256"] == summary["arms"][arm]["weights_sha256"]


@pytest.mark.parametrize("bits", [4, 8])
def test_two_processes_end_with_the_summary_of_one(bits, tmp_path):
    """Each holds the whole base; the rows of an update are shared out (DDP)."""
    things = runs.material(tmp_path)
    settings = {"model": {"bits": bits}, "adapter": {"dropout": 0.0}, "arms": {"held": ["oracle", "lwf"]}}
    files = [runs.run_file(tmp_path / name, things, **settings) for name in ("one", "two")]
    runs.finished(["learn", files[0]], tmp_path)
    several.finished(["learn", files[1]], tmp_path, 2)
    one, two = (read_json(file.parent / "out" / "summary.json")["arms"]["held"] for file in files)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert (two["learned"], two["retained"], two["steps"]) == (one["learned"], one["retained"], one["steps"])
    assert one["loss"]["last"] < one["loss"]["first"]


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adapter": None}, "an adapter of the types lora, rslora, dora must train, got adapter: null"),
        ({"adapter": {"type": "osf"}}, "got adapter: osf"),
        ({"train": {"fsdp": True}}, "train.fsdp shares weights in float32"),
        ({"continues": {"run": "out/before"}}, "a run goes on from a merged model in float32"),
        ({"model": {"bits": 3}}, "4 or 8"),
    ],
)
def test_what_cannot_be_trained_upon_few_bits_is_refused(settings, words):
    with pytest.raises(ValueError, match="bits") as error:
        of_settings({"corpus": {"path": "a.txt"}, "model": {"bits": 4}, **settings})
    assert words in str(error.value)


def test_meta_training_refuses_few_bits():
    with pytest.raises(ValueError, match=r"meta-training moves all weights of a model, .* got model\.bits: 4"):
        MetaRun.model_validate({"pairs": {"path": "pairs.jsonl"}, "model": {"bits": 4}})


def test_a_missing_bitsandbytes_is_told_with_the_cure(base, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    with pytest.raises(ValueError, match=r"model.bits: 4 needs the package bitsandbytes.*pip install 'foci\[bits\]'"):
        models.load(str(base), bits=4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_none_are_told_by_the_weight(tmp_path, bits, number):
    folder = tiny.save_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = number
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weight model\.layers\.1\.mlp\.up_proj\.weight holds numbers that are NaN"):
        models.load(str(folder), device="cpu", bits=bits)


def test_each_process_loads_onto_its_own_gpu(monkeypatch):
    """Transformers loads in threads, and the GPU that a process has chosen is that of its main thread alone."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert [arguments(4, device)["device_map"][""] for device in ("cuda", "cpu")] == ["cuda:3", "cpu"]


def test_other_bits_are_refused(base):
    with pytest.raises(ValueError, match="4 or 8 bits, got bits 2"):
        models.load(str(base), bits=2)


def test_a_run_goes_on_from_no_run_upon_few_bits(finished, tmp_path):
    run, _ = finished
    later = {"continues": {"run": str(run.output), "arm": "plain"}, "output": str(tmp_path / "later")}
    settings = run.model_dump(mode="json") | later
    settings["model"]["bits"] = None
    with pytest.raises(ValueError, match=r"was trained on weights in \d bits.*by foci export"):
        learn(of_settings(settings))


def test_an_adapter_is_no_base_in_few_bits(finished):
    run, _ = finished
    with pytest.raises(ValueError, match=r"is an adapter, which is merged into float32 weights, so model.bits: 4"):
        models.load(str(run.output / "arms" / "plain" / "adapter"), bits=4)
