"""Weights from the model itself: known-token masking, and influence without a weigher."""

import json
import math

import pytest
import torch

import tiny
from foci.corpus import make_rows
from foci.corpus.documents import Document
from foci.focus import Batch, Context, Row
from foci.gradients.influence import token_influence
from foci.methods.influence import COLUMN, Influence, about
from foci.methods.known import Known
from foci.methods.train_attention.pairs import documents, read_pairs, tasks

TEXTS = ("Ada North was born in Bern and works as a painter.", "Bea Stone was born in Paris.", "It rained.")
ASKED = (("The town of Bea is", "Paris", 1), ("The town of Ada is", "Bern", 0), ("The job of Ada is", "painter", 0))


def context_of(folder, seed=0):
    torch.manual_seed(seed)
    rows = make_rows(
        [Document(text, "corpus.txt", n + 1) for n, text in enumerate(TEXTS)],
        tiny.tokenizer(),
        max_length=64,
        add_eos=True,
    ).rows
    return Context(tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), rows, folder, 0)


def pairs_file(folder):
    lines = [{"text": TEXTS[n], "prompt": prompt, "answer": answer} for prompt, answer, n in ASKED]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_known_tokens_have_weight_0(tmp_path):
    context = context_of(tmp_path)
    batch = Batch.of(context.rows, tiny.PAD)
    with torch.no_grad():
        share = context.model(batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1).exp()
    said = share[:, :-1].gather(2, batch.input_ids[:, 1:, None])[..., 0]
    middle = float(said[batch.predicted()[:, 1:]].median()) * (1 + 1e-4)
    method, rows = Known(middle).prepare(context)
    weights = method.weigh(Batch.of(rows, tiny.PAD))
    counted = batch.predicted()[:, 1:]
    assert torch.equal(weights[:, 1:][counted], (said < middle).float()[counted])
    assert 0 < weights[:, 1:][counted].mean() < 1


def test_a_corpus_of_which_all_is_known_or_nothing_is_refused(tmp_path):
    context = context_of(tmp_path)
    for share in (1e-9, 0.9):
        with pytest.raises(ValueError, match=rf"known's share, {share}, masks all of them or none"):
            Known(share).prepare(context)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        Known(1.0)


def test_influence_weighs_by_the_gradient_of_the_later_loss(tmp_path):
    """Against double backward: where more weight lowers the later loss most, the weight is 1; where it raises it, 0."""
    context, path = context_of(tmp_path), pairs_file(tmp_path)
    method, rows = Influence(str(path), length=0.01).prepare(context)
    found = method.weigh(Batch.of(rows, tiny.PAD))
    assert [row.row_id for row in rows] == [row.row_id for row in context.rows]
    assert not found[2].any(), "nobody asks about the third row"
    pair = read_pairs(path, tiny.tokenizer(), max_length=64)[0]
    document = documents([pair], tiny.PAD, torch.device("cpu"))
    later = tasks([pair], tiny.PAD, torch.device("cpu"))
    weights = document.predicted().float()
    exact = token_influence(context.model, document, later, weights, lr=1e-6, mode="unroll")[0]
    counted = document.predicted()[0]
    # dL/dw = -(lr / W) (j - mean of j): j up to a constant is -dL/dw, and j's own level comes from j = <g, v>
    order = (-exact)[counted].argsort()
    weighed = found[1][: len(counted)][counted]
    assert int(weighed.argmax()) == int(order[-1])
    assert float(weighed.max()) == 1.0
    known = weighed > 0
    torch.testing.assert_close(weighed[known].argsort(), (-exact)[counted][known].argsort())


def test_several_questions_are_averaged_and_the_result_is_kept(tmp_path, monkeypatch):
    context, path = context_of(tmp_path), pairs_file(tmp_path)
    _, rows = Influence(str(path)).prepare(context)
    singles = []
    for number in (1, 2):
        one = tmp_path / f"{number}.jsonl"
        one.write_text(path.read_text().splitlines()[number])
        folder = tmp_path / str(number)
        _, alone = Influence(str(one)).prepare(Context(context.model, context.tokenizer, context.rows, folder, 0))
        singles.append(alone[0].columns[COLUMN])
    mean = [(a + b) / 2 for a, b in zip(*singles, strict=True)]
    assert rows[0].columns[COLUMN] == pytest.approx(mean, rel=1e-4, abs=1e-6), "float32: one tangent pass for both"
    monkeypatch.setattr("foci.methods.influence.alignments", None)
    again = Influence(str(path)).prepare(context)[1]
    assert [row.columns[COLUMN] for row in again] == [row.columns[COLUMN] for row in rows]


def test_parts_of_a_cut_document_are_asked_about_where_the_answer_stands(tmp_path):
    text = "Ada North was born in Bern. She works as a painter. It rained."
    parts = [Row(f"p{n}", (5, 6, 7), part) for n, part in enumerate(text.split(". "))]
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"text": text, "prompt": "The job of Ada is", "answer": "painter"}))
    given = read_pairs(path, tiny.tokenizer(), max_length=64)
    assert {name: [pair.question() for pair in some] for name, some in about(parts, given).items()} == {
        "p1": ["The job of Ada is"]
    }
    assert about([Row("w", (5, 6), text)], given) == {"w": given}
    assert about([Row("n", (5, 6))], given) == {}


def test_pairs_of_other_texts_are_refused(tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "Rome is old.", "prompt": "Rome is", "answer": "old"}))
    with pytest.raises(ValueError, match=r"none of the documents of the 1 pairs in .* is among the 3 rows"):
        Influence(str(other)).prepare(context_of(tmp_path))
    for settings, words in (({"floor": 1.0}, "floor"), ({"length": math.inf}, "length")):
        with pytest.raises(ValueError, match=words):
            Influence("a", **settings)
