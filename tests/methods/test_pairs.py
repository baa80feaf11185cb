"""Documents and what is asked about them later."""

import json

import pytest
import torch

import tiny
from foci.focus import IGNORED
from foci.methods.train_attention.pairs import documents, read_pairs, tasks

LINES = [
    {
        "text": "She was born in the town of Bern.",
        "prompt": "Her town is",
        "answer": "Bern",
        "answer_spans": [[28, 32]],
    },
    {
        "text": "The capital of France is Paris.",
        "question": "What is the capital?",
        "answer": "Paris",
        "group": "capital",
    },
    {"text": "The capital of France is Paris.", "prompt": "The capital of France", "answer": "is Paris"},
]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n\n".join(map(json.dumps, LINES)))
    return file


def test_pairs_become_rows_and_batches(path):
    tokenizer = tiny.tokenizer()
    pairs = read_pairs(path, tokenizer, max_length=64)
    assert len(pairs) == 3
    assert len({pair.id for pair in pairs}) == 3
    assert pairs[0].document.text == LINES[0]["text"]
    marked = [t for t, on in zip(pairs[0].document.input_ids, pairs[0].document.columns["answer"], strict=True) if on]
    assert tokenizer.decode(marked).strip() == "Bern"
    batch = tasks(pairs, tiny.PAD, torch.device("cpu"))
    for labels, pair, line in zip(batch.labels, pairs, LINES, strict=True):
        asked = labels[labels != IGNORED]
        assert tokenizer.decode(asked).strip() == line["answer"]
        assert pair.task.text.endswith(line["answer"])
    assert bool((documents(pairs, tiny.PAD, torch.device("cpu")).labels[0, : len(pairs[0].document)] != IGNORED).all())
    assert torch.equal(batch.attention_mask.sum(1), torch.tensor([len(pair.task) for pair in pairs]))


def test_a_pair_counts_once_and_a_long_document_gives_the_part_with_the_answer(path):
    tokenizer = tiny.tokenizer()
    assert len(read_pairs([path, path], tokenizer, max_length=64)) == 3
    whole = read_pairs(path, tokenizer, max_length=64)[0].document
    part = read_pairs(path, tokenizer, max_length=len(whole) // 2 + 1)[0].document
    assert len(part) < len(whole)
    assert any(part.columns["answer"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"pairs.jsonl:2: not JSON"),
        ("[1]", r"pairs.jsonl:2: a pair is a JSON object, got '\[1\]'"),
        ('{"text": "a b", "answer": "b"}', r"pairs.jsonl:2: prompt is text, got None; a pair has text, prompt"),
        ('{"text": " ", "prompt": "a", "answer": "b"}', r"pairs.jsonl:2: text is text, got ' '"),
        ('{"text": "a b", "prompt": "a", "answer": "b", "answer_spans": [[2]]}', r"pairs.jsonl:2: answer_spans are \["),
        ('{"text": "a b", "prompt": "a", "answer": "b", "answer_spans": [[2, 9]]}', r"pairs.jsonl:2: answer_spans are"),
    ],
)
def test_a_bad_line_is_told_with_its_place(tmp_path, line, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(LINES[0]) + "\n" + line)
    with pytest.raises(ValueError, match=message):
        read_pairs(file, tiny.tokenizer(), max_length=64)


def test_no_file_and_no_pairs(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_pairs(tmp_path / "none.jsonl", tiny.tokenizer(), max_length=64)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no pairs in"):
        read_pairs(tmp_path / "empty.jsonl", tiny.tokenizer(), max_length=64)
