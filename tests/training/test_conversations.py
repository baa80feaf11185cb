"""Rows of conversations in training: the loss is that of Transformers on the same labels, and weights multiply."""

import json
import math
from dataclasses import dataclass

import pytest
import torch

import chats
import small
import tiny
from foci.corpus import read_corpus
from foci.focus import IGNORED, LOSS_WEIGHT, REHEARSED, UNWEIGHTED, Batch, Plan, Row, WeighsTokens
from foci.methods.lwf import Lwf, LwfHold
from foci.methods.rho import Rho, RhoWeights
from foci.models.losses import token_nll, weighted_mean
from foci.training.dataset import Collator, joined
from foci.training.plan import update_holds, update_weights
from training import assert_same, trained, trained_plainly


@dataclass(frozen=True)
class Even(WeighsTokens):
    """Weighs all tokens alike, so that foci's own loss is used."""

    def weigh(self, batch):
        return torch.full(batch.labels.shape, 0.5)


@pytest.fixture
def rows(tmp_path):
    """Four conversations in the tokens of a tiny tokenizer."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role[0] + ':' + m.content + '\n' }}{% endfor %}" + (
        "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
    )
    lines = [
        {"messages": chats.turns("Who?" * n, "Ada." * (4 - n), "Where?", f"In Bern, {n}.")}
        for n in range(1, 5)
        if n < 4
    ]
    lines.append({"messages": chats.turns("Why is the workshop closed?", "Because of a fire.")})
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_corpus(path, tokenizer, max_length=200).rows


def labels_of(row):
    return [IGNORED if off else token for token, off in zip(row.input_ids, row.columns[UNWEIGHTED], strict=True)]


def test_the_loss_is_that_of_transformers_on_the_same_labels(rows):
    model = tiny.build("llama-tied", vocab=tiny.VOCAB).double()
    for row in rows:
        batch = Batch.of([row], tiny.PAD)
        with torch.no_grad():
            theirs = model(input_ids=batch.input_ids, labels=torch.tensor([labels_of(row)])).loss
            weights = update_weights(Plan(), batch).double()
            ours = weighted_mean(token_nll(model, batch).double(), weights, weights.sum())
        torch.testing.assert_close(ours, theirs.double(), rtol=1e-6, atol=0)


def test_an_empty_plan_trains_as_transformers_does_on_the_same_labels(tmp_path, rows):
    start = tiny.build("llama-tied", vocab=tiny.VOCAB).state_dict()

    def fresh():
        model = tiny.build("llama-tied", vocab=tiny.VOCAB)
        model.load_state_dict(start)
        return model

    model, losses = trained(tmp_path, rows, start=fresh(), per_device_train_batch_size=2, gradient_accumulation_steps=2)
    made = Collator(tiny.PAD, labelled=True)(rows)
    assert [line[: len(row)] for line, row in zip(made["labels"].tolist(), rows, strict=True)] == [
        *map(labels_of, rows)
    ]
    plain, theirs = trained_plainly(
        tmp_path, rows, start=fresh(), per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    assert losses == theirs
    assert_same(model, plain)
    weighed, _ = trained(
        tmp_path, rows, [Even()], start=fresh(), per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    assert_same(weighed, plain, tolerance=2e-6)


def test_weights_of_the_corpus_multiply_with_those_of_methods():
    one = Row("a", (5, 6, 7, 8), columns={"w": (0.0, 0.5, 1.0, 0.5), UNWEIGHTED: (1.0, 1.0, 0.0, 0.0)})
    two = Row("b", (5, 6, 7), columns={"w": (0.0, 0.5, 1.0), LOSS_WEIGHT: (0.0, 0.25, 2.0)})
    whole = Batch.of([one, two], tiny.PAD)
    expected = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.125, 2.0, 0.0]]
    assert update_weights(Plan([small.Column()]), whole).tolist() == expected
    apart, _ = joined([Batch.of([one], tiny.PAD), Batch.of([two], tiny.PAD)])
    assert update_weights(Plan([small.Column()]), apart).tolist() == expected
    rehearsed = Row("c", two.input_ids, columns={**two.columns, REHEARSED: (1.0,) * 3})
    assert update_weights(Plan([small.Column()]), Batch.of([rehearsed], tiny.PAD)).tolist() == [[0.0, 0.25, 2.0]]


def test_a_corpus_with_weights_of_its_own_is_trained_by_them(tmp_path):
    heavy = [Row(str(n), (5 + n, 6, 7, 8), columns={LOSS_WEIGHT: (0.0, 0.5, 0.0, 2.0)}) for n in range(4)]
    as_column = [Row(row.row_id, row.input_ids, columns={"w": (0.0, 0.25, 0.0, 1.0)}) for row in heavy]
    model, losses = trained(tmp_path, heavy)
    other, theirs = trained(tmp_path, as_column, [small.Column()])
    assert losses == pytest.approx(theirs, rel=1e-6)
    assert_same(model, other, tolerance=1e-6)


def test_questions_are_held_by_lwf_and_not_counted_by_methods_that_rank(rows):
    batch = Batch.of([rows[0]], tiny.PAD)
    questions = batch.columns[UNWEIGHTED].bool() & batch.predicted()
    plan = Plan([Even(), LwfHold(Lwf(), None)])
    (hold,) = update_holds(plan, batch, update_weights(plan, batch), 1.0)
    assert torch.equal(hold.bool(), questions)
    settings = Rho(keep=0.5)
    nll = torch.rand(batch.labels.shape) + 5 * questions
    columns = {**batch.columns, "nll": nll, settings.column: torch.zeros_like(nll)}
    kept = RhoWeights(settings).weigh(
        Batch(batch.input_ids, batch.attention_mask, batch.labels, columns, batch.row_ids)
    )
    assert kept.sum() == math.ceil(0.5 * int(batch.learned().sum()))
    assert not (kept.bool() & questions).any()
