"""A model on this machine as the writer, and the same model behind `transformers serve`."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import runs
import writers
from foci.models import load
from foci.study.passages import Passage
from foci.study.prompts import questions_on
from foci.study.writers.local import LocalWriter
from foci.study.writers.loops import loops

SERVED = os.environ.get("FOCI_SERVED") == "1"


def asked(writer, requests):
    found, left = {}, []
    writer.ask(requests, lambda request, reply: found.update({request: reply}), lambda *one: left.append(one))
    return found, left


def requests():
    texts = [writers.sentence("mill", place, 1700) * n for n, place in enumerate(writers.PLACES[:3], 1)]
    return [replace(questions_on(Passage(text, "a"), 1), max_tokens=5 + n) for n, text in enumerate(texts)]


def test_a_reply_does_not_depend_on_what_is_asked_beside_it(tmp_path):
    loaded = replace(load(str(writers.save_model(tmp_path / "model")), device="cpu"), compute_dtype=torch.float32)
    alone, together = (asked(LocalWriter(loaded, size), requests()) for size in (1, 3))
    assert alone == together
    assert len(alone[0]) == 3
    assert not alone[1]
    for request, reply in alone[0].items():
        assert 0 < reply.tokens_out <= request.max_tokens
        assert reply.finish in ("stop", "length")


def test_control_words_of_a_text_are_text(tmp_path):
    loaded = load(str(writers.save_model(tmp_path / "model")), device="cpu")
    writer = LocalWriter(loaded, 1)
    end = loaded.tokenizer.eos_token_id
    message = [{"role": "user", "content": "The word <eos> is written out."}]
    assert end not in writer._ids(message)
    loaded.tokenizer.chat_template = None
    assert end not in writer._ids(message)


def test_a_passage_without_room_is_left(tmp_path):
    writer = LocalWriter.of(str(writers.save_model(tmp_path / "model", 128)), 2)
    found, left = asked(writer, requests()[:1])
    assert not found
    assert "tokens, the model has 128" in left[0][1]


def test_self_is_the_model_that_learns_and_its_rubbish_is_told(tmp_path, capsys):
    corpus, model = writers.corpus(tmp_path / "pages", 2), writers.save_model(tmp_path / "model")
    more = ["--base", model, "--questions", "1", "--out", tmp_path / "out"]
    words = runs.refused(["study", corpus, "--writer", "self", "--by", "passage", *more], capsys)
    assert "none can be asked (no questions in the reply 2); name a larger writer, use --by sentence, or" in words
    kept = [json.loads(line) for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    assert {line["writer"] for line in kept} == {f"model {load(str(model)).fingerprint}"}
    assert all(line["tokens_in"] > 300 for line in kept)


def test_a_small_writer_is_asked_about_a_sentence_at_a_time(tmp_path, capsys):
    corpus, model = writers.corpus(tmp_path / "pages", 2), writers.save_model(tmp_path / "model")
    more = ["--base", model, "--questions", "3", "--out", tmp_path / "out"]
    words = runs.refused(["study", corpus, "--writer", "self", *more], capsys)
    assert "of 6 questions that the writer self wrote, none can be asked" in words
    kept = [json.loads(line) for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    said = "\n".join(path.read_text() for path in corpus.iterdir())
    assert len({line["evidence"] for line in kept}) == 6
    assert all(line["evidence"] in said for line in kept)
    told = runs.told(["study", corpus, "--writer", "self", *more, "--dry-run"], capsys)
    assert "is small" in told
    assert "to ask: 6 requests for questions and at most 4 for rewrites" in told


def test_a_reply_that_loops_is_ended_whatever_is_asked_beside_it(tmp_path):
    """A model whose head favours one word says it for ever."""
    loaded = load(str(writers.save_model(tmp_path / "model")), device="cpu")
    ids = loaded.tokenizer("Berlin Berlin", add_special_tokens=False).input_ids
    rows, width = loaded.model.get_output_embeddings().weight.shape
    loaded.model.lm_head = torch.nn.Linear(width, rows)
    with torch.no_grad():
        loaded.model.lm_head.weight.zero_()
        loaded.model.lm_head.bias.copy_(torch.nn.functional.one_hot(torch.tensor(ids[-1]), rows))
    long = [replace(one, max_tokens=400) for one in requests()]
    alone, together = (asked(LocalWriter(loaded, size), long)[0] for size in (1, 3))
    assert alone == together
    for reply in alone.values():
        assert reply.finish == "loop"
        assert loops(reply.text)
        assert reply.tokens_out < 100


@pytest.mark.skipif(not SERVED, reason="make served starts a real server (a minute)")
def test_transformers_serve_answers_every_request(tmp_path, capsys):
    """A random model writes rubbish, so no question passes; every reply comes with its tokens, and is kept."""
    if missing := [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"transformers serve needs {missing[0]}: pip install 'transformers[serving]'")
    corpus, model, out = writers.corpus(tmp_path / "pages"), writers.save_model(tmp_path / "model"), tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    with subprocess.Popen([*serve, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            more = ["--model", model, "--questions", "1", "--workers", "2", "--out", out]
            words = runs.refused(["study", corpus, "--writer", f"http://127.0.0.1:{port}/v1", *more], capsys)
        finally:
            server.terminate()
    assert "of 6 questions that the writer" in words
    kept = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert len(kept) == 6
    assert all(0 < line["tokens_out"] <= 170 < line["tokens_in"] for line in kept)


def wait_for(url, server, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"no answer from {url}")
