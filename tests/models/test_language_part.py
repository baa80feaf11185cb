"""Of a model that reads images or sound, the language part is loaded: its logits on text are those of the whole."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, Gemma3Config

import tiny
from foci import models
from foci.config.run import ModelConfig
from foci.learn.save import save
from foci.system.run_folder import ArmFolder
from runs import assert_one_paragraph

IDS = torch.tensor([[2, 50, 7, 31, 96, 12, 64, 5, 3, 4, 9]])
TEXT = {
    "vocab_size": tiny.VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None, "initializer_range": 0.2, "max_position_embeddings": 128,
}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
EYES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
QWEN_EYES = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {**TEXT, "query_pre_attn_scalar": 8, "sliding_window": 6}, "mm_tokens_per_image": 4,
        "vision_config": {**EYES, "model_type": "siglip_vision_model"},
    },
    "gemma4": {
        "text_config": {**TEXT, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": tiny.VOCAB},
        "vision_config": EYES,
    },
    "llava": {
        "text_config": {**TEXT, "model_type": "llama"}, "vision_config": {**EYES, "model_type": "clip_vision_model"},
    },
    "smolvlm": {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": EYES, "pad_token_id": 0},
    "lfm2_vl": {
        "text_config": {**TEXT, "model_type": "lfm2", "layer_types": ["conv", "full_attention"]},
        "vision_config": {**EYES, "model_type": "siglip2_vision_model"},
    },
    "mistral3": {
        "text_config": {**TEXT, "model_type": "mistral"},
        "vision_config": {**EYES, "model_type": "pixtral", "head_dim": 8},
    },
    "qwen2_5_vl": {"text_config": {**TEXT, **MROPE}, "vision_config": {**QWEN_EYES, "patch_size": 4}},
    "qwen2_vl": {"text_config": {**TEXT, **MROPE}, "vision_config": {"depth": 1, "embed_dim": 16, "num_heads": 2}},
    "qwen3_vl_moe": {
        "text_config": {**TEXT, **MROPE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        "vision_config": {**QWEN_EYES, "patch_size": 4, "deepstack_visual_indexes": [0]},
    },
    "qwen3_vl": {
        "text_config": {**TEXT, **MROPE},
        "vision_config": {**QWEN_EYES, "patch_size": 4, "deepstack_visual_indexes": [0]},
    },
}  # fmt: skip


def whole(name: str, tied: bool) -> nn.Module:
    settings = FAMILIES[name]
    text = {**settings["text_config"], "tie_word_embeddings": tied}
    config = AutoConfig.for_model(name, **{**settings, "text_config": text}, tie_word_embeddings=tied)
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config).eval()


def written(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_language_part_answers_as_the_whole_model(name, tied, tmp_path):
    model = whole(name, tied)
    loaded = models.load(str(written(model, tmp_path)), device="cpu").model
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-6, rtol=0)
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in model.parameters())
    assert (loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight) == tied


def test_a_scale_that_the_whole_model_leaves_out_is_told(tmp_path):
    text = {**TEXT, "model_type": "cohere2", "logit_scale": 0.5, "layer_types": ["full_attention"] * 2}
    eyes = {**EYES, "model_type": "siglip_vision_model"}
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(
        AutoConfig.for_model("aya_vision", text_config=text, vision_config=eyes)
    )
    with pytest.warns(
        UserWarning, match=r"logit_scale 0.5.*AyaVisionForConditionalGeneration of this Transformers lea"
    ):
        loaded = models.load(str(written(model.eval(), tmp_path)), device="cpu").model
    torch.testing.assert_close(logits(loaded), logits(model) / 2, atol=1e-6, rtol=0)


def test_a_language_part_whose_weights_have_names_that_are_unknown_is_refused_before_they_are_loaded(tmp_path):
    file = written(whole("llava", False), tmp_path) / "model.safetensors"
    save_file({k.replace(".layers.", ".blocks."): v for k, v in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"names? the weights of its language part in a way that is unknown .*blocks\.0"
    ):
        models.load(str(tmp_path), device="cpu")


def test_older_names_of_weights_are_understood(tmp_path):
    """LLaVA was published with `language_model.model.layers...` and `language_model.lm_head`."""
    model = whole("llava", False)
    file = written(model, tmp_path) / "model.safetensors"
    weights = {
        name.replace("model.language_model.", "language_model.model.").replace("lm_head.", "language_model.lm_head.")
        if not name.startswith("language_model.")
        else name: value
        for name, value in load_file(file).items()
    }
    assert "language_model.lm_head.weight" in weights
    save_file(weights, file, metadata={"format": "pt"})
    torch.testing.assert_close(logits(models.load(str(tmp_path), device="cpu").model), logits(model), atol=1e-6, rtol=0)


def test_it_is_trained_saved_and_loaded_again(tmp_path):
    base = written(whole("gemma3", True), tmp_path / "base")
    model = models.add_adapter(models.load(str(base), device="cpu").model, models.Adapter(r=4))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    wanted = logits(model.eval())
    saved = save(model, tiny.tokenizer(), ArmFolder(tmp_path / "arm"), ModelConfig(name=str(base)))
    assert len(saved.notes) == 1
    assert f"hold the language part of {base} alone" in saved.notes[0]
    for kind in ("model", "adapter"):
        found = models.load(str(tmp_path / "arm" / kind), device="cpu").model
        torch.testing.assert_close(logits(found), wanted, atol=1e-4, rtol=1e-4)


MLLAMA_EYES = {"hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "glm4v": (
        "Glm4vForConditionalGeneration", {"text_config": TEXT, "vision_config": {**QWEN_EYES, "patch_size": 4}},
        r"reads images or sound \(Glm4vForCond.* type 'glm4v_text', has no class for text alone",
    ),
    "mllama": (
        "MllamaForConditionalGeneration", {"text_config": {**TEXT, "bos_token_id": 1}, "vision_config": MLLAMA_EYES},
        r"reads images or sound \(MllamaForCond.* type 'mllama_text_model', has no class for text alone",
    ),
    "paligemma": (
        "PaliGemmaForConditionalGeneration",
        {"text_config": {**TEXT, "model_type": "gemma"},
         "vision_config": {**EYES, "model_type": "siglip_vision_model"}},
        r"\(PaliGemmaForCond.* is not causal: its tokens attend to those after them",
    ),
    "gemma3_text": (
        "Gemma3ForCausalLM", {**TEXT, "use_bidirectional_attention": True},
        r"\(model type 'gemma3_text'\) is not causal: its tokens attend to those after them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_language_part_that_cannot_be_trained_alone_is_refused_before_weights_are_read(kind, tmp_path):
    architecture, settings, words = REFUSED[kind]
    config = AutoConfig.for_model(kind, **settings)
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=words) as refused:
        models.load(str(tmp_path), device="cpu")  # there are no weights
    assert_one_paragraph(str(refused.value))


def test_a_model_of_text_alone_is_left_alone(tmp_path):
    folder = tiny.save_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    assert not {"text_config", "vision_config"} & config.keys()
    assert type(models.load(str(folder), device="cpu").model).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize(
    "written",
    [b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 86\n", (10**6).to_bytes(8, "little"), b""],
    ids=["a pointer of Git LFS", "cut", "empty"],
)
def test_weights_that_are_not_whole_are_refused_as_those_of_a_text_model(tmp_path, written):
    text = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "head_dim": 8,
            "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    config = Gemma3Config(text_config=text)
    config.architectures = ["Gemma3ForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(written)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        models.load(str(tmp_path))
