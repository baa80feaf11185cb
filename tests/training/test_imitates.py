"""The part of the loss that imitating a teacher adds, and the laws of the role."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import small
import tiny
from foci import FocusTrainer, Plan, token_nll
from foci.corpus import row_id
from foci.focus import UNWEIGHTED, Batch, Context, Row, SoftTargets, WeighsTokens
from foci.learn.callbacks import Metrics, empty_updates
from foci.learn.offline import prepare
from foci.methods import replay
from foci.methods.lwf import Lwf
from foci.methods.replay import Replay
from foci.seeds import generator
from foci.system.files import read_lines
from foci.system.run_folder import ArmFolder
from training import arguments, assert_same, model, trained, weights

SGD = {"optim": "sgd", "learning_rate": 0.1, "num_train_epochs": 1}


@dataclass(frozen=True)
class Nothing(WeighsTokens):
    """No token has weight."""

    def weigh(self, batch: Batch) -> Tensor:
        return torch.zeros(batch.input_ids.shape)


@dataclass(frozen=True)
class Elsewhere(small.Imitating):
    """A stored teacher: another model, asked when needed."""

    def teacher(self):
        return self

    def targets(self, batch, where):
        logits = tiny.build("llama", seed=1)(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        log_p = logits[:, :-1][where[:, 1:]].detach().log_softmax(-1)
        best, ids = log_p.topk(self.k)
        rest = log_p.exp().scatter(1, ids, 0).sum(1).log()
        return SoftTargets(ids, best, rest)


def test_loss_by_hand(tmp_path):
    """sum(w nll) / sum(w) + strength * sum(a KL) / sum(a), each part with its own denominator."""
    start, b = model(), small.batch(4)
    method = Elsewhere(power=3.0, k=97)
    w = b.columns["w"] * b.predicted()
    a = method.hold(b, w / w.max()) * b.predicted()
    ours = start(input_ids=b.input_ids, attention_mask=b.attention_mask).logits.detach().log_softmax(-1)
    theirs = tiny.build("llama", seed=1)(input_ids=b.input_ids, attention_mask=b.attention_mask).logits
    theirs = theirs.detach().log_softmax(-1)
    divergence = torch.zeros_like(w)
    divergence[:, 1:] = (theirs.exp() * (theirs - ours)).sum(-1)[:, :-1]
    expected = (w * token_nll(start, b).detach()).sum() / w.sum() + 3.0 * (a * divergence).sum() / a.sum()
    _, losses = trained(tmp_path, small.rows(4), [small.Column(), method], start=start, **SGD)
    assert losses[0] == pytest.approx(expected.item(), abs=1e-5)


def test_no_gradient_at_the_first_update(tmp_path):
    """The learner is its own teacher until it has moved."""
    _, losses = trained(tmp_path, small.rows(4), [Nothing(), small.Imitating()], start=model(lora=True), **SGD)
    assert losses[0] > 0.001  # the adapter of this test starts away from the untouched model
    fresh, losses = trained(tmp_path, small.rows(4), [Nothing(), small.Imitating()], start=model(), **SGD)
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert_same(fresh, model(), 1e-7)


@pytest.mark.parametrize(("methods", "held", "guided", "empty"), [
    ([Nothing()], 0, 0, 1), ([Nothing(), small.Imitating()], 9, 0, 0),
    ([Nothing(), small.Imitating(power=0.0)], 0, 0, 1), ([Nothing(), small.LookAt(layer=1)], 0, 9, 0), ([], 0, 0, 0),
])  # fmt: skip
def test_an_update_is_empty_where_nothing_at_all_trains(tmp_path, methods, held, guided, empty):
    """Two rows of 7 and 4 tokens: 9 predicted tokens, 9 queries with a token before them."""
    rows = [Row("a", (5, 6, 7, 8, 9, 10, 11), columns={"w": (0.0,) + (1.0,) * 6}), Row("b", (9, 8, 7, 6))]
    trainer = FocusTrainer(model(), arguments(tmp_path, max_steps=1), plan=Plan(methods), train_dataset=rows)
    trainer.add_callback(Metrics(ArmFolder(tmp_path / "arm"), trainer, []))
    trainer.train()
    lines = read_lines(ArmFolder(tmp_path / "arm").metrics)
    assert [(line["held_tokens"], line["guided_queries"]) for line in lines] == [(held, guided)]
    assert empty_updates(lines) == empty


def test_strength_0_is_neutral(tmp_path):
    free, losses = trained(tmp_path / "free", small.rows(), [small.Column()])
    led, others = trained(tmp_path / "led", small.rows(), [small.Column(), small.Imitating(power=0.0)])
    assert losses == others
    assert_same(free, led)


def test_a_one_hot_teacher_is_plain_loss(tmp_path):
    @dataclass(frozen=True)
    class Labels(small.Imitating):
        def teacher(self):
            return self

        def hold(self, batch, weights):
            return torch.ones_like(weights)

        def targets(self, batch, where):
            ids = batch.labels[where][:, None]
            return SoftTargets(ids, torch.zeros(ids.shape), torch.full((len(ids),), -torch.inf))

    led, others = trained(tmp_path / "led", small.rows(), [Nothing(), Labels(power=1.0)], **SGD)
    free, expected = trained(tmp_path / "free", small.rows(), **SGD)
    assert others == pytest.approx(expected, abs=1e-5)
    assert_same(led, free, 1e-6)


def prepared(folder: Path, methods, rows) -> tuple[Plan, list[Row]]:
    plan, rows = prepare(Plan(methods), Context(model(), tiny.tokenizer(), rows, folder, 0))
    return plan, list(rows)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_columns_are_the_live_teacher(tmp_path, temperature):
    found = []
    for teacher in ("columns", "live"):
        settings = Lwf(strength=2.0, below=0.5, k=5, teacher=teacher, temperature=temperature)
        plan, rows = prepared(tmp_path / teacher, [small.Column(), settings], small.rows())
        found.append(trained(tmp_path / f"{teacher}-run", rows, plan.methods, **SGD))
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)
    assert_same(found[0][0], found[1][0], 1e-6)


def test_a_misled_teacher_reads_another_row_first(tmp_path):
    rows = small.rows(3)
    hold, _ = Lwf(on="all", k=97, teacher="misled").prepare(Context(model(), tiny.tokenizer(), rows, tmp_path, 0))
    batch = Batch.of(rows, tiny.PAD)
    where = batch.predicted()
    targets = hold.teacher().targets(batch, where)
    net, found = model(), []
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        ids = torch.tensor([[*other.input_ids, *row.input_ids]])
        log_p = net(input_ids=ids).logits[0].detach().log_softmax(-1)
        found.append(log_p[len(other) : len(other) + len(row) - 1])
    theirs = torch.full((len(targets.ids), 97), -torch.inf).scatter(1, targets.ids, targets.log_probs)
    torch.testing.assert_close(theirs, torch.cat(found), atol=1e-5, rtol=1e-5)


def test_a_part_of_the_shards_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr("foci.corpus.shards.TOKENS", 30)
    settings, rows = Lwf(on="all", k=3), small.rows()
    context = Context(model(), tiny.tokenizer(), rows, tmp_path, 0)
    first = list(settings.fill(context, 0, 2))
    second = list(settings.fill(context, 1, 2))
    assert first
    assert second
    assert sum(tokens for tokens, _ in first + second) == sum(map(len, rows))
    assert list(settings.fill(context)) == []
    hold, _ = settings.prepare(context)
    batch = Batch.of(rows, tiny.PAD)
    stored = hold.teacher().targets(batch, batch.predicted())
    whole, _ = Lwf(on="all", k=3).prepare(replace(context, folder=tmp_path / "whole"))
    torch.testing.assert_close(stored.log_probs, whole.teacher().targets(batch, batch.predicted()).log_probs)


def test_a_fading_strength_by_hand():
    hold, _ = Lwf(strength=4.0, end=1.0, teacher="live").prepare(
        Context(model(), tiny.tokenizer(), small.rows(), Path(), 0)
    )
    assert [hold.strength(step, 4) for step in range(4)] == [4.0, 3.0, 2.0, 1.0]


def test_replay_held_to_the_untouched_model(tmp_path):
    """Its rows have no labels: the update's hard loss is that of the new rows alone, and the rows are held."""
    old = [Row(row_id(f"old {n}", "t"), r.input_ids) for n, r in enumerate(small.rows(4, seed=9))]
    settings = Replay(samples=4, anchor="kl")
    context = Context(model(), tiny.tokenizer(), small.rows(4), tmp_path / "pool", 0)
    (tmp_path / "pool").mkdir()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "pool_of", lambda *_: replay.Pool(tuple(old), 4))
        method, rows = settings.prepare(context)
    mixed = method.mix(0, generator(0, "mix"))
    assert all(set(row.columns[UNWEIGHTED]) == {1.0} for row in mixed)
    batch = Batch.of([*rows, *mixed], tiny.PAD)
    hold = method.hold(batch, torch.ones(batch.input_ids.shape))
    assert bool((hold[:4] == 0).all())
    assert bool((hold[4:] * batch.predicted()[4:] == batch.predicted()[4:]).all())
    start = model()
    b = small.batch(4)
    w = b.predicted().float()
    expected = (w * token_nll(start, b).detach()).sum() / w.sum()
    _, losses = trained(tmp_path / "run", rows, [method], start=start, per_device_train_batch_size=8, **SGD)
    assert losses[0] == pytest.approx(expected.item(), abs=1e-5)


def test_the_encyclopedia_is_made_and_never_learned(tmp_path):
    net = tiny.build("llama", vocab=tiny.VOCAB)
    context = Context(net, tiny.tokenizer(), small.rows(4, longest=30), tmp_path, 3)
    method, _ = Replay(path="encyclopedia", samples=5, anchor="kl").prepare(context)
    assert len(method.pool.rows) >= 5
    assert all(len(row) <= 30 and set(row.columns) == {UNWEIGHTED} and row.text for row in method.pool.rows)
    assert Replay(path="encyclopedia", samples=5, anchor="kl").prepare(context)[0] == method
    with pytest.raises(ValueError, match="must not be learned, got anchor 'labels'; set anchor: kl"):
        Replay(path="encyclopedia")


def test_micro_batches_in_which_one_method_holds_nothing(tmp_path):
    """Two methods hold different rows; a micro-batch of one row has tokens of one of them alone."""
    old = [replace(row, row_id=f"old {row.row_id}") for row in small.rows(4, seed=9)]
    context = Context(model(), tiny.tokenizer(), small.rows(4), tmp_path, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "pool_of", lambda *_: replay.Pool(tuple(old), 4))
        plan, rows = prepare(Plan([small.Column(), Lwf(k=3), Replay(anchor="kl")]), context)
    runs = [
        trained(
            tmp_path / str(size), rows, plan.methods, per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size, train_sampling_strategy="sequential", **SGD,
        )
        for size in (4, 1)
    ]  # fmt: skip
    assert runs[0][1] == pytest.approx(runs[1][1], abs=2e-6)
    assert_same(runs[0][0], runs[1][0], 1e-6)


def test_edits_need_a_live_teacher(tmp_path):
    plan, rows = prepared(tmp_path, [small.Column(), small.Dropped(), Lwf(k=3)], small.rows())
    with pytest.raises(ValueError, match="ask the teacher while training"):
        trained(tmp_path / "run", rows, plan.methods)


def test_holding_the_rest_needs_a_weigher(tmp_path):
    plan, rows = prepared(tmp_path, [Lwf(k=3)], small.rows())
    with pytest.raises(ValueError, match="nothing weighs tokens in this plan; add a method"):
        trained(tmp_path / "run", rows, plan.methods)


def test_rows_that_the_teacher_did_not_read_are_refused(tmp_path):
    plan, _ = prepared(tmp_path, [small.Column(), Lwf(k=3)], small.rows())
    with pytest.raises(ValueError, match=r"the teacher read nothing of row 5-\d+, which has \d+ tokens now"):
        trained(tmp_path / "run", small.rows(seed=5), plan.methods)


def test_a_frozen_adapter_block_stays_frozen(tmp_path):
    """PEFT's own way to the base model asks for gradients of all adapter weights afterwards."""
    net = model(lora=True)
    before = weights(net)
    trained(tmp_path, small.rows(), [small.Column(), small.Scaled({"layers.0": 0.0}), small.Imitating()], start=net)
    after = weights(net)
    assert all(torch.equal(before[name], after[name]) for name in before if "layers.0." in name)
    assert any(not torch.equal(before[name], after[name]) for name in before if "layers.1." in name)
