"""Reading takes little memory: a long document is read in windows, and rows share what they can."""

import json
import random
import re
import sys

import pytest

import tiny
from foci.corpus import Document, make_rows, read_corpus, rows
from foci.system import machine

WORDS = [
    *("the", "town", "of", "Bern", "in", "north", "where", "she", "was", "born", "and", "works", "as", "a", "painter."),
    *("By", "the", "sea,", "he", "sang!\n"),
]


def text_of(size: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    words = []
    while size > 0:
        words.append(rng.choice(WORDS))
        size -= len(words[-1]) + 1
    return " ".join(words)


def one(text: str, **marks: object) -> Document:
    return Document(text.strip(), "a.txt", 3, whole_file=True, **marks)


@pytest.mark.parametrize("text", [text_of(12_000), text_of(9_000).replace("\n", "").replace(".", ""), "x" * 9_000])
@pytest.mark.parametrize("marked", [False, True])
def test_windows_make_the_rows_of_the_whole_document(monkeypatch, text, marked):
    places = [found.start() for found in re.finditer("painter", text)][::9] if marked else []
    document, tokenizer = one(text, spans={"answer": tuple((at, at + 7) for at in places)}), tiny.tokenizer()
    whole = make_rows([document], tokenizer, max_length=12)
    monkeypatch.setattr(rows, "WINDOW", 1000)
    assert make_rows([document], tokenizer, max_length=12) == whole


def test_a_document_that_is_one_row_stays_one(monkeypatch):
    monkeypatch.setattr(rows, "WINDOW", 1000)
    tokenizer, text = tiny.tokenizer(), "Bern " * 1000
    monkeypatch.setattr(rows.Encoder, "window", 1000)
    (row,) = make_rows([one(text)], tokenizer, max_length=20_000).rows
    assert row.text == text.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_one_large_document_takes_little_memory(tmp_path):
    """Of 1 MB, read in windows: read whole, it takes 650 bytes for each token."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": text_of(1_000_000)}) + "\n")
    tokenizer = tiny.tokenizer()
    make_rows([one(text_of(1000))], tokenizer, max_length=64)  # what is made once
    machine.reset_peak()
    before = machine.peak_mib()
    corpus = read_corpus(path, tokenizer, max_length=64)
    assert (machine.peak_mib() - before) * 2**20 / corpus.tokens < 300


def test_rows_share_numbers_and_places():
    first, second = make_rows(
        [Document(f"{word} was born in Bern.", "a", 1) for word in ("Ada", "Bea")], tiny.tokenizer(), max_length=64
    ).rows
    assert first.offsets[-2] is second.offsets[-2]
