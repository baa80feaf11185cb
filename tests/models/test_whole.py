"""Files of a model that are not whole, or not what their names say: named at once, with the cure; nothing is loaded."""

import json
import re
import shutil

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

import tiny
from foci.models import load, locate
from foci.models.whole import check_numbers, check_safetensors, check_weights, weight_names

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 269060552\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def refused(folder):
    """The words of the error, one paragraph that names a file of the folder."""
    with pytest.raises(ValueError, match=r".") as caught:
        load(str(folder), device="cpu")
    words = str(caught.value)
    assert "\n" not in words
    assert str(folder) in words
    return words


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_git_lfs_pointer_is_named_with_the_cure(folder, file):
    (folder / file).write_bytes(POINTER)
    words = refused(folder)
    assert f"{folder / file} is a Git LFS pointer, not the file itself" in words
    assert f"git -C {folder} lfs pull" in words


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (lambda raw: raw[: len(raw) // 2], "ends too early: it has "),
        (lambda raw: raw[:-1], "ends too early: it has "),
        (lambda raw: raw[:100], "ends within its header: 100 bytes"),
        (lambda raw: raw[:5], "ends within its header: 5 bytes"),
        (lambda raw: b"", "ends within its header: 0 bytes"),
        (lambda raw: raw + b"\0", "bytes, its header says "),
        (lambda raw: b"PK\x03\x04" + raw, "is not a safetensors file"),
        (lambda raw: raw[:8] + raw[8:].replace(b'"data_offsets"', b'"data_offsetz"', 1), "is not a safetensors file"),
    ],
)
def test_weights_that_are_cut_or_something_else_are_named(folder, cut, words):
    path = folder / "model.safetensors"
    path.write_bytes(cut(path.read_bytes()))
    said = refused(folder)
    assert str(path) in said
    assert words in said
    assert "get it again" in said


def test_whole_weights_pass(saved, tmp_path):
    check_weights(saved, "model")
    save_file({}, tmp_path / "empty.safetensors")
    check_safetensors(tmp_path / "empty.safetensors")
    save_file({"a": torch.zeros(0), "b": torch.zeros(3)}, tmp_path / "some.safetensors", metadata={"format": "pt"})
    check_safetensors(tmp_path / "some.safetensors")


def test_weights_in_parts_are_all_there(folder):
    tiny.build("llama-tied", vocab=tiny.VOCAB).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink()
    parts = weight_names(folder, "model")
    assert len(parts) > 1
    assert load(str(folder), device="cpu")
    (folder / parts[-1]).rename(folder / "elsewhere")
    assert f"{folder / parts[-1]} is missing, though model.safetensors.index.json names it" in refused(folder)
    (folder / "elsewhere").rename(folder / parts[-1])
    (folder / parts[0]).write_bytes(POINTER)
    assert f"{folder / parts[0]} is a Git LFS pointer" in refused(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')
    assert "should name a file for each weight in 'weight_map', got []" in refused(folder)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "[]", "should hold one JSON object, got list"),
        ("config.json", '{"model_type": "llama", "architectures": "LlamaForCausalLM"', "is not JSON"),
        ("tokenizer.json", '{"version": "1.0"}', "the tokenizer in"),
        ("tokenizer.json", "[" * 100_000, "is not JSON"),
        ("tokenizer.json", '{"mo', "is not JSON"),
        ("tokenizer_config.json", "\xff", "is not JSON"),
        ("special_tokens_map.json", "3", "should hold one JSON object, got int"),
    ],
)
def test_other_files_that_are_broken_are_named(folder, file, content, words):
    (folder / file).write_text(content, encoding="latin-1")
    assert words in refused(folder)


@pytest.mark.parametrize(
    "fields", [{"hidden_size": "many"}, {"num_hidden_layers": None}, {"hidden_act": "no such"}, {"hidden_size": 8}]
)
def test_a_configuration_that_makes_no_model_is_told_in_one_paragraph(folder, fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    refused(folder)


def changed(folder, fields=None, weights=None):
    """Writes other fields into config.json, and other weights."""
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **(fields or {})}))
    file = folder / "model.safetensors"
    save_file({**load_file(file), **(weights or {})}, file, {"format": "pt"})


LAYER = "model.layers.0.self_attn"


@pytest.mark.parametrize(("fields", "weights", "words"), [
    ({"num_hidden_layers": 1}, {}, r"without a place in the model of 1 layers .*\(model.layers.1.*, and 7 more\)"),
    ({}, {f"{LAYER}.q_proj.bias": torch.ones(32)}, r"without a place .* \(.*q_proj.bias\)"),
    ({}, {f"{LAYER}.q_proj.lora_A.weight": torch.ones(2, 32)}, r"without a place in the model .*lora_A"),
    ({"num_attention_heads": 2}, {}, r"another size .* is \(32, 32\), expected \(32, 16\), and 3 more"),
    ({"vocab_size": 200}, {}, r"another size .* is \(320, 32\), expected \(200, 32\)\)"),
    ({}, {"model.norm.weight": torch.full((32,), torch.nan)}, r"the weight model.norm.weight holds .* NaN"),
])  # fmt: skip
def test_weights_and_a_configuration_that_do_not_belong_together_are_refused(folder, fields, weights, words):
    changed(folder, fields, weights)
    assert re.search(words, refused(folder))


def test_what_transformers_leaves_out_too_is_no_error(folder):
    """Buffers of older versions, and the layer after the last that predicts a further token."""
    changed(folder, {}, {f"{LAYER}.rotary_emb.inv_freq": torch.ones(4), "model.layers.0.attn.bias": torch.ones(1)})
    changed(folder, {"num_nextn_predict_layers": 1}, {"model.layers.2.eh_proj.weight": torch.ones(32, 64)})
    load(str(folder), device="cpu")
    changed(folder, {}, {"model.layers.3.eh_proj.weight": torch.ones(32, 64)})
    assert "model.layers.3.eh_proj.weight" in refused(folder)


def test_an_adapter_that_is_cut_is_named(saved, tmp_path):
    wrapped = tiny.lora(load(str(saved), device="cpu").model)
    wrapped.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path} ends too early" in refused(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "is a Git LFS pointer"),
        (b"", r"is not a GGUF file \(it begins with b''\)"),
        (b"PK\x03\x04", "is not a GGUF file"),
        (b"GGUF", "ends too early or is damaged"),
        (b"GGUF\3\0\0\0" + b"\1" + bytes(15), "ends too early or is damaged"),
    ],
)
def test_a_gguf_file_that_is_none_is_named(tmp_path, monkeypatch, content, words):
    monkeypatch.setenv("FOCI_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"m\.gguf {words}"):
        load(str(path))
    assert not [left for left in (tmp_path / "cache").glob("*") if left.suffix != ".lock"]


def test_half_a_gguf_file_is_named(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("FOCI_CACHE", str(tmp_path / "cache"))
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", torch.zeros(64, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"m\.gguf ends too early or is damaged \(.*get it again"):
        load(str(tmp_path / "m.gguf"))


REPOSITORY = [
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    *("consolidated.safetensors", "params.json", "original/model.safetensors", "original/config.json", "README.md"),
    *("original/tokenizer.model", "metal/model.bin", "model.onnx", "onnx/model.onnx", "pytorch_model.bin"),
    *("modeling_own.py", "flax_model.msgpack"),
]
INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
SMALL = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
         "params.json", "README.md"}  # fmt: skip


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A hub of one repository, by the hub's own filter: its files, and those that were asked for."""
    asked = set()

    def snapshot(name, allow_patterns=None, ignore_patterns=None, **_):
        folder = tmp_path / "snapshot"
        folder.mkdir(exist_ok=True)
        for file in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            asked.add(file)
            source = saved / ("model.safetensors" if file.endswith(".safetensors") else file)
            (folder / file).parent.mkdir(exist_ok=True)
            content = source.read_bytes() if source.is_file() else b"{}"
            (folder / file).write_bytes(json.dumps(INDEX).encode() if file.endswith("index.json") else content)
        return str(folder)

    files: list[str] = []
    monkeypatch.setattr(locate, "snapshot_download", snapshot)
    return files, asked


def test_only_what_is_loaded_is_downloaded(hub):
    files, asked = hub
    files += REPOSITORY
    locate.folder_of("org/model")
    parts = set(INDEX["weight_map"].values())
    assert asked == SMALL | parts | {"model.safetensors.index.json"}


def test_one_weight_file_and_nothing_of_other_folders_is_downloaded(hub):
    files, asked = hub
    files += [name for name in REPOSITORY if "0000" not in name and "index" not in name] + ["model.safetensors"]
    locate.folder_of("org/model")
    assert asked == SMALL | {"model.safetensors"}
    locate.folder_of("org/model", trust_remote_code=True)
    assert asked == SMALL | {"model.safetensors", "modeling_own.py"}


def test_of_an_adapter_its_weights_are_downloaded(hub, saved, tmp_path):
    files, asked = hub
    files += [
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint-5/adapter_model.safetensors",
        "a.safetensors",
    ]
    locate.folder_of("org/adapter")
    assert asked == {"adapter_config.json", "adapter_model.safetensors"}


HALVES = (torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_that_are_not_finite_are_found_in_every_format(dtype):
    """The largest numbers of a format are right: their sum would not be finite."""
    limits = torch.finfo(dtype)
    right = torch.tensor([limits.max] * 9 + [limits.min] * 4 + [0.0]).to(dtype).reshape(2, 7)
    check_numbers([("w", right), ("none", right[:0]), ("counts", torch.tensor([3]))], "model 'm'")
    for number in (torch.nan, torch.inf, -torch.inf):
        wrong = right.clone()
        wrong[1, 2] = number
        if torch.isfinite(wrong.float()).all():
            assert dtype is torch.float8_e4m3fn, "it has no infinity"
            continue
        with pytest.raises(ValueError, match=r"model 'm': the weight w holds numbers that are NaN or infinite"):
            check_numbers([("w", wrong)], "model 'm'")
