"""The earlier methods that rehearse: replay and mix-review, from files and from the model's own samples."""

from dataclasses import replace

import pytest
import torch

import families
import tiny
from foci.corpus import read_rows
from foci.focus import Batch, Context, Plan, Row
from foci.methods import _rehearsal, build
from foci.methods._rehearsal import Pool, own_samples, rehearsed
from foci.methods.mix_review import MixReview, decayed
from foci.methods.replay import Replay
from foci.models.losses import token_nll
from foci.seeds import generator
from foci.training.dataset import MixedDataset, RowDataset
from training import trained

SCHEDULE = [4.0, 2.8, 1.96, 1.372, 0.9604, 0.67228, 0.470596, 0.3294172, 0.23059204, 0.161414428]
"""4 * 0.7^epoch of ten epochs, multiplied out by hand."""


def new_rows(count: int = 10, length: int = 8) -> list[Row]:
    return [Row(f"new-{n}", tuple((7 * n + 3 * t) % 90 + 5 for t in range(length))) for n in range(count)]


def context(folder, **changes) -> Context:
    net = tiny.build("llama", vocab=tiny.VOCAB)
    settings = {"model": net, "tokenizer": tiny.tokenizer(), "rows": new_rows(), "folder": folder, "seed": 2}
    return Context(**(settings | changes))


@pytest.fixture
def old_text(tmp_path):
    path = tmp_path / "old.txt"
    path.write_text("The capital of France is Paris. She was born in the town of Bern and works in the north. " * 4)
    return str(path)


def test_the_schedule_of_ten_epochs_by_hand():
    assert [decayed(4.0, 0.7, epoch) for epoch in range(10)] == pytest.approx(SCHEDULE)
    method = MixReview()
    assert (method.ratio, method.decay) == (4.0, 0.7)
    assert [rehearsed(10, ratio) for ratio in SCHEDULE] == [40, 28, 20, 14, 10, 7, 5, 3, 2, 2]


def test_the_trainer_reads_the_schedule(old_text, tmp_path):
    for method, counts in (
        (MixReview(path=old_text), [40, 28, 20, 14, 10, 7, 5, 3, 2, 2]),
        (Replay(path=old_text), [10] * 10),
        (Replay(path=old_text, ratio=0.25), [3] * 10),
    ):
        online, rows = method.prepare(context(tmp_path / str(counts[0])))
        mixed = MixedDataset(RowDataset(rows), Plan([online]), 10)
        assert [len(part) - 10 for part in mixed.parts()] == counts


def test_no_old_row_comes_twice_before_all_came_once():
    pool = Pool(tuple(new_rows(4)), 10)
    drawn = [row.row_id for row in pool.drawn(1.0, generator(0))]
    assert len(drawn) == 10
    for part in (drawn[:4], drawn[4:8]):
        assert sorted(part) == [row.row_id for row in pool.rows]
    assert len(set(drawn[8:])) == 2


def test_a_draw_depends_on_its_generator_alone():
    pool = Pool(tuple(new_rows(30)), 10)
    first, again, other = (pool.drawn(1.0, generator(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_old_rows_come_from_files_cut_to_the_length_of_the_new(old_text, tmp_path):
    online, rows = build({"replay": {"path": old_text}}).prepare(context(tmp_path / "kept"))
    assert rows == context(tmp_path).rows
    assert online.settings == Replay(path=old_text)
    assert 1 < max(len(row) for row in online.pool.rows) <= 8
    assert all(row.source.startswith(old_text) for row in online.pool.rows)
    assert list(online.pool.rows) == read_rows(tmp_path / "kept" / "old_rows.parquet")


def test_what_was_kept_is_used_again_and_refused_when_stale(tmp_path, monkeypatch):
    made = context(tmp_path)
    first = Replay(samples=3).prepare(made)[0].pool
    monkeypatch.setattr(_rehearsal, "own_samples", lambda *_, **__: pytest.fail("drawn again"))
    assert Replay(samples=3).prepare(made)[0].pool == first
    with pytest.raises(ValueError, match=r"own_samples.parquet is stale.*\(samples: 3 then, 4 now\)"):
        Replay(samples=4).prepare(made)
    with pytest.raises(ValueError, match=r"stale.*length: 8 then, 5 now"):
        Replay(samples=3).prepare(context(tmp_path, rows=new_rows(length=5)))
    with pytest.raises(ValueError, match=r"stale.*seed: 2 then, 3 now"):
        Replay(samples=3).prepare(context(tmp_path, seed=3))
    with pytest.raises(ValueError, match=r"stale.*model: "):
        Replay(samples=3).prepare(context(tmp_path, model=tiny.build("llama", vocab=tiny.VOCAB, seed=1)))


# --- the model's own samples ---


def test_samples_are_as_long_as_new_rows_are_on_average(tmp_path):
    rows = [*new_rows(3, length=4), *(replace(row, row_id=f"long{row.row_id}") for row in new_rows(1, length=9))]
    pool = Replay(samples=40).prepare(context(tmp_path, rows=rows))[0].pool  # (3 * 4 + 9) / 4 = 5.25
    assert max(len(row) for row in pool.rows) == 6


def test_samples_begin_with_the_start_token_and_end_with_eos():
    net = tiny.build("llama", vocab=tiny.VOCAB)
    with torch.no_grad():
        net.lm_head.weight[tiny.EOS] = 0.6 * net.lm_head.weight.mean(0)  # often enough to be seen
    rows = own_samples(net, tiny.tokenizer(), 150, 12, seed=4)
    assert len(rows) == 150
    assert {row.input_ids[0] for row in rows} == {tiny.EOS}  # the tokenizer has no BOS
    lengths = {len(row) for row in rows}
    assert max(lengths) == 12
    assert min(lengths) < 12
    for row in rows:
        assert tiny.EOS not in row.input_ids[1:-1]
        assert row.input_ids[-1] == tiny.EOS or len(row) == 12
        assert 2 <= len(row) <= 12
    assert rows == own_samples(net, tiny.tokenizer(), 150, 12, seed=4)
    assert rows != own_samples(net, tiny.tokenizer(), 150, 12, seed=5)


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma2"])
def test_samples_are_drawn_from_the_model_itself(name):
    """Under the model the mean NLL of its samples is its mean entropy (nats); cutting or heating it moves that."""
    net = tiny.build(name, vocab=tiny.VOCAB)
    rows = own_samples(net, tiny.tokenizer(), 400, 10, seed=1)
    batch = Batch.of(rows, tiny.PAD)
    with torch.no_grad():
        logits = net(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1)
        nll = token_nll(net, batch)
    entropy = -(logits.exp() * logits).sum(-1)[:, :-1][batch.predicted()[:, 1:]]
    gap = nll[batch.predicted()] - entropy
    error = float(gap.std()) / len(gap) ** 0.5
    assert abs(float(gap.mean())) < 4 * error
    assert error < 0.05


def test_samples_leave_the_model_as_it_was():
    net = tiny.build("llama", vocab=tiny.VOCAB).train()
    own_samples(net, tiny.tokenizer(), 2, 4)
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_tokenizer_without_a_first_token_is_told():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"no BOS or EOS token.*name a path to old text"):
        own_samples(tiny.build("llama", vocab=tiny.VOCAB), tokenizer, 2, 4)
    with pytest.raises(ValueError, match="got 0 of 4"):
        own_samples(tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), 0, 4)


def sharp() -> torch.nn.Module:
    """A tiny model that is sure of what comes next (0.7 nats): a flat one knows nothing that could be forgotten."""
    net = tiny.build("llama", vocab=tiny.VOCAB)
    with torch.no_grad():
        net.lm_head.weight.mul_(8)
    return net


def surprise(net: torch.nn.Module, batch: Batch) -> float:
    """Mean NLL in nats."""
    with torch.no_grad():
        return float(token_nll(net.eval(), batch).sum() / batch.predicted().sum())


def test_texts_about_things_that_do_not_exist_are_never_learned():
    for make in (Replay, MixReview):
        with pytest.raises(ValueError, match="things that do not exist"):
            make(path="encyclopedia")


@pytest.mark.parametrize("method", [Replay(samples=100), MixReview(samples=100)], ids=["replay", "mix_review"])
def test_rehearsing_its_own_samples_keeps_the_model_nearer_to_itself(method, tmp_path):
    """Fresh samples of the untouched model surprise the trained one; less so where others were rehearsed."""
    fresh = Batch.of(own_samples(sharp(), tiny.tokenizer(), 100, 8, seed=99), tiny.PAD)
    online, rows = method.prepare(context(tmp_path / "kept", model=sharp()))
    new, before = Batch.of(rows, tiny.PAD), surprise(sharp(), fresh)
    forgotten = {}
    for name, methods in {"plain": [], "rehearsed": [online]}.items():
        net = sharp()
        trained(tmp_path, rows, methods, start=net, num_train_epochs=8)
        assert surprise(net, new) < 2.0 < surprise(sharp(), new)
        forgotten[name] = surprise(net, fresh) - before
    assert 0 < forgotten["rehearsed"] < 0.5 * forgotten["plain"]


def test_settings_out_of_range():
    for wrong in ({"ratio": 0.0}, {"ratio": float("inf")}, {"samples": 0}):
        with pytest.raises(ValueError, match="replay expected ratio > 0"):
            Replay(**wrong)
        with pytest.raises(ValueError, match=r"the paper's are 4 and 0\.7"):
            MixReview(**wrong)
    with pytest.raises(ValueError, match=r"decay 1\.5"):
        MixReview(decay=1.5)


@pytest.mark.parametrize("name", ["mamba", "bamba", "falcon_h1"])
def test_samples_are_those_of_whole_rows_whatever_cache_a_model_has(name, monkeypatch):
    net = families.build(name, vocab=tiny.VOCAB).eval()
    found = [row.input_ids for row in own_samples(net, tiny.tokenizer(), 4, 10, seed=3)]
    monkeypatch.setattr(_rehearsal, "decodes_from_cache", lambda *_, **__: False)
    assert found == [row.input_ids for row in own_samples(net, tiny.tokenizer(), 4, 10, seed=3)]
