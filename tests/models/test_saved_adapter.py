"""Adapters on disk: those that do not fit are refused in one paragraph, those that fit are merged rightly."""

import json
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

import families
import tiny
from foci import models
from foci.models import saved_adapter
from runs import assert_one_paragraph

IDS = torch.tensor([[2, 50, 7, 31, 96, 12, 64, 5]])


def logits(model) -> torch.Tensor:
    return model(IDS, use_cache=False).logits.detach()


def adapter(folder, base, made=None, **settings):
    """Writes a random adapter upon a saved base, or upon a model of its own; returns what it answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
        model = get_peft_model(made or models.load(str(base), device="cpu").model, config).eval()
        model.peft_config["default"].base_model_name_or_path = str(base)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_" in name:
                    p.add_(0.2 * torch.randn_like(p))
        model.save_pretrained(folder, save_embedding_layers=False)
    return logits(model)


@pytest.fixture
def base(tmp_path):
    return tiny.save_model(tmp_path / "base", "llama-tied")


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"], ["q_proj", "lm_head"]])
def test_an_adapter_on_a_tied_head_or_embedding_is_merged_into_that_one(base, tmp_path, targets):
    wanted = adapter(tmp_path / "a", base, target_modules=targets)
    loaded = models.load(str(tmp_path / "a"), device="cpu").model
    assert (wanted - logits(tiny.build("llama-tied", vocab=tiny.VOCAB))).abs().max() > 0.5
    torch.testing.assert_close(logits(loaded), wanted, atol=1e-4, rtol=1e-4)
    loaded.save_pretrained(tmp_path / "merged")
    tiny.tokenizer().save_pretrained(tmp_path / "merged")
    again = models.load(str(tmp_path / "merged"), device="cpu").model
    torch.testing.assert_close(logits(again), wanted, atol=1e-4, rtol=1e-4)


def test_an_adapter_whose_base_is_an_adapter_is_merged_upon_the_merged_one(base, tmp_path):
    adapter(tmp_path / "a", base, target_modules=["q_proj", "up_proj"])
    wanted = adapter(tmp_path / "b", tmp_path / "a", target_modules=["q_proj", "down_proj"])
    loaded = models.load(str(tmp_path / "b"), device="cpu")
    assert loaded.tokenizer.get_vocab() == tiny.tokenizer().get_vocab()
    torch.testing.assert_close(logits(loaded.model), wanted, atol=1e-4, rtol=1e-4)


def test_an_adapter_that_names_itself_as_its_base_is_refused(base, tmp_path):
    adapter(tmp_path / "a", base, target_modules=["q_proj"])
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(tmp_path / "a")}))
    with pytest.raises(ValueError, match="names itself as its base model"):
        models.load(str(tmp_path / "a"), device="cpu")


def wider(folder):
    tiny.build("llama-tied", vocab=tiny.VOCAB, width=64).save_pretrained(folder)


def lower(folder):
    tiny.build("llama-tied", vocab=tiny.VOCAB, layers=1).save_pretrained(folder)


def higher(folder):
    tiny.build("llama-tied", vocab=tiny.VOCAB, layers=3).save_pretrained(folder)


def of_another_kind(folder):
    tiny.build("gpt2", vocab=tiny.VOCAB).save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wider, r"does not fit its base model '.*base': size mismatch for "),
        (lower, r"does not fit .*: 4 weights have no place in the model \(base_model"),
        (higher, r"does not fit .*: 4 weights of the model are not in its file \(base_model"),
        (of_another_kind, r"does not fit .*: Target modules .*not found in the base model"),
    ],
)
def test_an_adapter_of_another_base_is_refused_in_one_paragraph(base, tmp_path, change, words):
    adapter(tmp_path / "a", base, target_modules=["q_proj", "v_proj"])
    change(base)
    with pytest.raises(ValueError, match=words) as refused:
        models.load(str(tmp_path / "a"), device="cpu")
    assert "base_model_name_or_path of" in str(refused.value)
    assert_one_paragraph(str(refused.value))


def test_an_adapter_with_renamed_or_lost_weights_is_refused(base, tmp_path):
    adapter(tmp_path / "a", base, target_modules=["q_proj", "v_proj"])
    file = tmp_path / "a" / "adapter_model.safetensors"
    weights = load_file(file)
    first = next(iter(weights))
    save_file({name.replace("q_proj", "query"): value for name, value in weights.items()}, file)
    with pytest.raises(ValueError, match=r"4 weights have no place in the model .* and 4 weights of the model are not"):
        models.load(str(tmp_path / "a"), device="cpu")
    save_file({name: value for name, value in weights.items() if name != first}, file)
    with pytest.raises(ValueError, match=r"1 weights of the model are not in its file .*get the files again"):
        models.load(str(tmp_path / "a"), device="cpu")


def test_adapters_that_cannot_be_merged_are_refused_by_name(base, tmp_path):
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(models.load(str(base), device="cpu").model, config)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(tmp_path / "a")
    with pytest.raises(ValueError, match="PREFIX_TUNING, which cannot be merged"):
        models.load(str(tmp_path / "a"), device="cpu")
    settings = tmp_path / "a" / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "task_type": "SEQ_CLS"}))
    with pytest.raises(ValueError, match="is for SEQ_CLS, expected CAUSAL_LM"):
        models.load(str(tmp_path / "a"), device="cpu")


def test_an_adapter_that_changes_one_shared_weight_in_two_ways_is_not_merged():
    """Zamba 2's blocks share weights, and PEFT gives each use its own adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=4, init_lora_weights=False, target_modules=["gate_up_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(families.build("zamba2"), config)
    assert isinstance(model, PeftModel)
    with pytest.raises(ValueError, match=r"'mine' cannot be merged into Zamba2ForCausalLM: .*blocks share weights"):
        saved_adapter.merged(model, "mine")


def test_distances_by_hand():
    some, others = torch.ones(3, 2), torch.ones(3, 2)
    some[1, 1], others[1, 1] = 4.0, 2.0
    assert saved_adapter.distance(some, others) == 1.0  # 2 of 2
    assert saved_adapter.distance(some, others, most=False) == 0.0
    assert saved_adapter.distance(some, others[:2]) == float("inf")


@pytest.mark.parametrize(("fields", "words"), [
    ({"base_model_name_or_path": None}, r"names no base model; write the name or the place"),
    ({"base_model_name_or_path": 3}, r"names no base model"),
    ({"peft_type": "NOPE"}, r"is of the type 'NOPE', which this PEFT \(.*\) does not know"),
    ({"peft_type": None}, r"is of the type None, which this PEFT"),
])  # fmt: skip
def test_settings_of_an_adapter_that_say_too_little_are_refused_by_name(base, tmp_path, fields, words):
    adapter(tmp_path / "a", base, target_modules=["q_proj"])
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
    with pytest.raises(ValueError, match=words) as refused:
        models.load(str(tmp_path / "a"), device="cpu")
    assert_one_paragraph(str(refused.value))


def test_an_adapter_that_diverged_is_refused_by_its_weight(base, tmp_path):
    adapter(tmp_path / "a", base, target_modules=["q_proj"])
    file = tmp_path / "a" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({**weights, min(weights): weights[min(weights)] * torch.nan}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"the adapter .*lora_A.* holds numbers that are NaN or infinite"):
        models.load(str(tmp_path / "a"), device="cpu")
