"""What a run writes is loaded again and must answer as the trained model did; else the run says so."""

import json
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model

import families
import tiny
from foci import models
from foci.config.run import ModelConfig
from foci.learn import save as saving
from foci.learn.save import save
from foci.models.saved_adapter import answers
from foci.system.run_folder import ArmFolder


@pytest.fixture
def base(tmp_path):
    return tiny.save_model(tmp_path / "base", "llama-tied")


def moved(model):
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def learner(base):
    return moved(models.add_adapter(models.load(str(base), device="cpu").model, models.Adapter(r=4)))


def test_both_are_written_and_answer_as_the_trained_model_did(base, tmp_path):
    model = learner(base)
    wanted = answers(model)
    saved = save(model, tiny.tokenizer(), ArmFolder(tmp_path / "arm"), ModelConfig(name=str(base)))
    assert saved.notes == ()
    assert {p.device.type for p in model.parameters()} == {"meta"}  # its memory is free
    for kind in ("model", "adapter"):
        found = models.load(str(tmp_path / "arm" / kind), device="cpu").model
        torch.testing.assert_close(answers(found), wanted, atol=1e-4, rtol=1e-4)


def test_where_the_merged_model_would_be_another_one_the_adapter_alone_is_written(tmp_path):
    base = families.save("zamba2", tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = LoraConfig(r=4, init_lora_weights=False, target_modules=["gate_up_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(families.build("zamba2", vocab=tiny.VOCAB), settings).eval()
    saved = save(model, tiny.tokenizer(), ArmFolder(tmp_path / "arm"), ModelConfig(name=str(base)))
    assert len(saved.notes) == 1
    assert saved.notes[0].startswith("model/ was not written: the adapter ")
    assert "blocks share weights" in saved.notes[0]
    assert (tmp_path / "arm" / "adapter").is_dir()
    assert not (tmp_path / "arm" / "model").exists()


@pytest.mark.parametrize("wrong", ["model", "adapter"])
def test_what_answers_in_another_way_is_deleted_and_the_other_kept(base, tmp_path, monkeypatch, wrong):
    inner = saving._loaded

    def loaded(path, of, device, below):
        found = inner(path, of, device, below).requires_grad_(True)
        return moved(found) if path.name == wrong else found

    monkeypatch.setattr(saving, "_loaded", loaded)
    saved = save(learner(base), tiny.tokenizer(), ArmFolder(tmp_path / "arm"), ModelConfig(name=str(base)))
    other = {"model": "adapter", "adapter": "model"}[wrong]
    assert len(saved.notes) == 1
    assert saved.notes[0].startswith(f"{wrong}/ does not answer as the trained model did (logits are off by ")
    assert saved.notes[0].endswith(f"it was deleted; use {other}/, which does")
    assert [path.name for path in sorted((tmp_path / "arm").iterdir())] == [other]


def test_the_only_thing_that_was_written_is_kept_and_told_of(base, tmp_path, monkeypatch):
    def fails(*_args, **_settings):
        raise ValueError("cut in half")

    monkeypatch.setattr(saving, "load_weights", fails)
    model = moved(models.load(str(base), device="cpu").model)
    saved = save(model, tiny.tokenizer(), ArmFolder(tmp_path / "arm"), ModelConfig(name=str(base)))
    assert saved.notes == ("model/ cannot be loaded again (cut in half); measure it before you use it",)
    assert (tmp_path / "arm" / "model").is_dir()


def test_a_base_in_half_precision_or_that_is_an_adapter_is_told_of(base, tmp_path):
    config = base / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "bfloat16"}))
    first = save(learner(base), tiny.tokenizer(), ArmFolder(tmp_path / "a"), ModelConfig(name=str(base)))
    assert len(first.notes) == 1
    assert "model/ is float32 (0 MB)" in first.notes[0]
    assert f"the files of {base} are bfloat16" in first.notes[0]
    upon = tmp_path / "a" / "adapter"
    second = save(learner(upon), tiny.tokenizer(), ArmFolder(tmp_path / "b"), ModelConfig(name=str(upon)))
    assert len(second.notes) == 2
    assert f"adapter/ stands on {upon}, which is an adapter itself" in second.notes[1]
    two = [answers(models.load(str(tmp_path / "b" / kind), device="cpu").model) for kind in ("model", "adapter")]
    torch.testing.assert_close(*two, atol=1e-4, rtol=1e-4)
