"""The earlier methods that weigh tokens: RHO-1, TF-IDF, and the shuffled control, held to values worked by hand."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import small
import tiny
from foci.focus import REHEARSED, Batch, Context, Plan, Row, WeighsTokens
from foci.learn.offline import prepare
from foci.methods import build, rho
from foci.methods.oracle import Oracle
from foci.methods.rho import Rho, RhoWeights, top_share
from foci.methods.salient import Salient, tf_idf
from foci.methods.shuffled import Shuffled, ShuffledWeights
from foci.models.forward import row_nll
from foci.models.losses import token_nll
from foci.seeds import generator
from training import trained, weights

TEXTS = ["the cat sat", "The dog sat", "the the owl"]


def rows_of(texts: list[str]) -> list[Row]:
    """Rows with text and offsets; the answer is the last word."""
    rows = []
    for n, text in enumerate(texts):
        encoded = tiny.tokenizer()(text, return_offsets_mapping=True)
        ids, offsets = (*encoded["input_ids"], tiny.EOS), (*map(tuple, encoded["offset_mapping"]), (0, 0))
        answer = tuple(float(end > text.rindex(" ") + 1) for _, end in offsets)
        rows.append(Row(f"t{n}", ids, text, offsets, {"answer": answer}, f"texts:{n + 1}"))
    return rows


def context(folder, rows=None, **changes) -> Context:
    net = tiny.build("llama", vocab=tiny.VOCAB)
    settings = {"model": net, "tokenizer": tiny.tokenizer(), "rows": rows or rows_of(TEXTS), "folder": folder}
    return Context(**(settings | changes))


@dataclass(frozen=True)
class Watched(WeighsTokens):
    """Another weigher, and every batch and weight it was asked for."""

    inner: WeighsTokens
    seen: list[Any] = field(default_factory=list)

    def needs(self) -> frozenset[str]:
        return self.inner.needs()

    def weigh(self, batch: Batch) -> torch.Tensor:
        found = self.inner.weigh(batch)
        self.seen.append((batch, found))
        return found


# --- RHO-1 ---


def test_the_top_share_by_hand():
    """Excess of 7 counted tokens; 60 % of 7 is 4.2, rounded up 5; two of the three tokens of 0.5 are kept."""
    excess = torch.tensor([[99.0, 0.5, 2.0, -1.0], [99.0, 0.5, 0.9, 99.0], [99.0, 0.5, 0.7, 99.0]])
    counted = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0], [0, 1, 1, 0]]).bool()
    expected = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
    assert top_share(excess, counted, 0.6).int().tolist() == expected
    assert excess[0, 0] == 99  # left as it was


@pytest.mark.parametrize(("keep", "kept"), [(0.6, 6), (0.7, 7), (0.61, 7), (0.01, 1), (0.999, 10)])
def test_the_share_is_exact(keep, kept):
    excess, counted = torch.rand(1, 10), torch.ones(1, 10, dtype=torch.bool)
    assert int(top_share(excess, counted, keep).sum()) == kept


def published(excess: torch.Tensor, keep: float) -> torch.Tensor:
    """The mask of the published code of arXiv 2407.16920: argsort read as rank, excess with its sign reversed."""
    indices = torch.argsort(-excess, descending=True)
    return indices < int(keep * len(excess))


def test_the_published_mask_is_random_and_ours_is_not():
    excess = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    largest = set(excess.topk(2000).indices.tolist())

    def overlap(mask: torch.Tensor) -> float:
        return len(largest & set(mask.nonzero()[:, 0].tolist())) / len(largest)

    assert overlap(published(excess, 0.4)) == pytest.approx(0.4, abs=0.03)  # what a mask drawn by lot has
    assert overlap(top_share(excess[None], torch.ones(1, 5000, dtype=torch.bool), 0.4)[0]) == 1.0
    by_hand = torch.tensor([0.9, 0.3, 0.5, 0.7, 0.1])  # the largest two are tokens 0 and 3
    assert published(by_hand, 0.4).nonzero()[:, 0].tolist() == [1, 4]  # argsort of -excess is 4 1 2 3 0
    assert top_share(by_hand[None], torch.ones(1, 5, dtype=torch.bool), 0.4).nonzero()[:, 1].tolist() == [0, 3]


def test_padding_and_rehearsed_rows_are_not_counted():
    new = Row("a", (5, 6, 7, 8, 9, 10), columns={"start_nll": (0.0, 1.0, 1.0, 1.0, 1.0, 1.0)})
    short = Row("b", (5, 6), columns={"start_nll": (0.0, 1.0)})
    old = Row("c", (5, 6, 7, 8), columns={"start_nll": (0.0,) * 4, REHEARSED: (1.0,) * 4})
    batch = Batch.of([new, short, old], tiny.PAD)
    nll = torch.full((3, 6), 9.0)  # where no token is, a number that must not matter
    nll[0, 1:], nll[1, 1] = torch.tensor([1.5, 0.2, 3.0, 1.1, 1.2]), 1.4
    batch.columns["nll"] = nll
    assert RhoWeights(Rho(keep=0.5)).weigh(batch).tolist() == [[0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6]


def test_the_reference_is_the_untouched_model_row_by_row(tmp_path):
    made = context(tmp_path)
    method, rows = Rho().prepare(made)
    assert method.needs() == {"nll", "start_nll"}
    for row, before in zip(rows, made.rows, strict=True):
        alone = token_nll(made.model, Batch.of([before], tiny.PAD))[0]
        assert row.columns["start_nll"] == pytest.approx(alone.tolist(), abs=1e-4)
        assert row.columns["answer"] == before.columns["answer"]
    again = Rho().prepare(made)[1]
    assert again == rows


def test_scores_are_found_again_and_refused_when_stale(tmp_path, monkeypatch):
    made = context(tmp_path)
    rows = Rho().prepare(made)[1]
    monkeypatch.setattr(rho, "row_nll", lambda *_: pytest.fail("computed again"))
    assert Rho().prepare(made)[1] == rows
    other = tiny.build("llama", vocab=tiny.VOCAB, seed=1)
    with pytest.raises(ValueError, match=r"start_nll.parquet is stale.*reference: .* then, .* now.*delete"):
        Rho().prepare(context(tmp_path, model=other))
    with pytest.raises(ValueError, match=r"stale.*\(rows: '"):
        Rho().prepare(context(tmp_path, rows=rows_of(TEXTS[:2])))
    (tmp_path / "start_nll.json").unlink()  # a torn write
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        Rho().prepare(made)


def test_another_model_is_a_reference_if_its_tokenizer_is_the_same(tmp_path):
    saved = str(tiny.save_model(tmp_path / "reference", "llama", seed=3))
    made = context(tmp_path / "a")
    rows = Rho(reference=saved).prepare(made)[1]
    expected = row_nll(tiny.build("llama", vocab=tiny.VOCAB, seed=3), tiny.tokenizer(), made.rows)
    for row, nll in zip(rows, expected, strict=True):
        assert row.columns["reference_nll"] == pytest.approx(nll, abs=1e-5)
        assert "start_nll" not in row.columns  # the untouched model's, which other methods read
    other = tiny.tokenizer()
    other.add_tokens(["Rome"])
    with pytest.raises(ValueError, match=r"rho's reference .* has another tokenizer"):
        Rho(reference=saved).prepare(context(tmp_path / "b", tokenizer=other))


def test_training_reads_the_tokens_that_lag_most(tmp_path):
    made = context(tmp_path / "scores")
    method, rows = Rho().prepare(made)
    watched = Watched(method)
    trained(tmp_path, rows, [watched], start=made.model, num_train_epochs=6)
    assert len(watched.seen) == 6
    for batch, weight in watched.seen:
        excess = batch.columns["nll"] - batch.columns["start_nll"]
        ranked = sorted(excess[batch.predicted()].tolist(), reverse=True)
        count = math.ceil(0.6 * len(ranked))
        assert sorted(excess[weight > 0].tolist(), reverse=True) == ranked[:count]
        assert not (weight[~batch.predicted()] > 0).any()
    assert not torch.equal(watched.seen[1][1], watched.seen[-1][1].view_as(watched.seen[1][1])) or len(rows) == 1


@pytest.mark.parametrize("keep", [0.0, 1.0, -1.0, float("nan")])
def test_rho_refuses_a_share_that_means_nothing(keep):
    with pytest.raises(ValueError, match=r"rho's keep is a share above 0 and below 1.*0\.6 \(1\.1B\)"):
        Rho(keep)


def test_rho_without_scores_says_where_they_come_from():
    batch = Batch.of([Row("a", (5, 6))], tiny.PAD)
    batch.columns["nll"] = torch.ones(1, 2)
    with pytest.raises(
        ValueError, match=r"rho reads the column 'start_nll', got \['nll'\]; train on the rows that its"
    ):
        RhoWeights(Rho()).weigh(batch)


# --- TF-IDF ---


def test_tf_idf_by_hand():
    """3 rows: idf of `the` (in 3) = ln(4/4) + 1 = 1, of `sat` (in 2) = ln(4/3) + 1, of the rest = ln(4/2) + 1."""
    rare, twice = 1.6931471805599454, 1.2876820724517808
    cat, _, owl = tf_idf([text.lower().split() for text in TEXTS])
    assert cat == pytest.approx({"the": 1 / rare, "cat": 1.0, "sat": twice / rare})
    assert owl == pytest.approx({"the": 1.0, "owl": rare / 2})  # twice in the row: 2 * 1 is the largest


def test_tokens_have_the_weight_of_their_word_whatever_its_case(tmp_path):
    method, rows = Salient().prepare(context(tmp_path))
    want = {"the": 1 / 1.6931471805599454, "dog": 1.0, "sat": 1.2876820724517808 / 1.6931471805599454}
    dog = rows[1]
    column = dog.columns["salient"]
    for (start, end), weight in list(zip(dog.offsets, column, strict=True))[:-1]:
        word = next(
            w for w in want if dog.text.lower().find(w) - 1 < end - 0.5 and dog.text.lower().find(w) + len(w) > start
        )
        assert weight == pytest.approx(want[word]), (start, end)
    assert column[-1] == pytest.approx(1 / 1.6931471805599454)  # EOS: in every row, as `the`
    batch = Batch.of(rows, tiny.PAD)
    assert torch.equal(method.weigh(batch), batch.columns["salient"])
    assert max(column) == 1.0


def test_punctuation_is_a_term_of_its_own(tmp_path):
    (row,) = Salient().prepare(context(tmp_path, rows=rows_of(["Rome, Rome, Rome, Oslo."])))[1]
    column = dict(zip(row.offsets, row.columns["salient"], strict=True))
    assert {column[4, 5], column[10, 11]} == {1.0}  # three commas, and three times Rome with the space before it
    assert {column[n, n + 1] for n in (0, 3, 5, 6, 9, 11, 15)} == {1.0}
    assert [column[n, n + 1] for n in (17, 18, 21, 22)] == pytest.approx([1 / 3] * 4)  # Oslo and the full stop


def test_tokens_can_be_the_terms(tmp_path):
    plain = [Row("a", (7, 7, 8)), Row("b", (7, 9))]
    with pytest.raises(ValueError, match=r"row a has none; set unit: token"):
        Salient().prepare(context(tmp_path, rows=plain))
    rows = Salient(unit="token").prepare(context(tmp_path, rows=plain))[1]
    rare = math.log(3 / 2) + 1
    assert rows[0].columns["salient"] == pytest.approx((1.0, 1.0, rare / 2))
    assert rows[1].columns["salient"] == pytest.approx((1 / rare, 1.0))


def test_training_on_salient_words_learns_them_first(tmp_path):
    made = context(tmp_path / "offline", rows=rows_of(["the owl sat in the town of the north of the north"] * 1))
    plan, rows = prepare(Plan([Salient()]), made)
    batch = Batch.of(rows, tiny.PAD)
    heavy = batch.predicted() & (batch.columns["salient"] == 1)
    nll = {}
    for name, methods in {"plain": [], "salient": plan.methods}.items():
        net = tiny.build("llama", vocab=tiny.VOCAB)
        trained(tmp_path, rows, methods, start=net, num_train_epochs=3, learning_rate=1e-3)
        nll[name] = float(token_nll(net.eval(), batch)[heavy].mean().detach())
    assert nll["salient"] < nll["plain"]


# --- shuffled ---


def test_shuffled_permutes_within_a_row_among_predicted_tokens():
    rows = small.rows(6)
    rows = [Row(r.row_id, r.input_ids, columns={"answer": r.columns["w"]}) for r in rows]
    batch, settings = Batch.of(rows, tiny.PAD), Shuffled(of={"oracle": {"floor": 0.1}})
    method = ShuffledWeights(settings, Oracle(0.1))
    inner, got = Oracle(0.1).weigh(batch), method.weigh(batch)
    predicted = batch.predicted()
    for line, before, where in zip(got, inner, predicted, strict=True):
        assert sorted(line[where].tolist()) == sorted(before[where].tolist())
        assert torch.equal(line[~where], before[~where])
    assert not torch.equal(got, inner)
    alone = method.weigh(Batch.of(rows[2:3], tiny.PAD))[0]  # by the row's id, whatever the batch
    torch.testing.assert_close(alone, got[2, : len(rows[2])])
    order = generator("shuffled", rows[2].row_id).permutation(len(rows[2]) - 1)
    assert alone[1:].tolist() == [inner[2, 1:][i].item() for i in order]


def test_shuffled_runs_the_offline_stage_of_what_it_wraps(tmp_path):
    method, rows = build({"shuffled": {"of": {"rho": {"keep": 0.5}}}}).prepare(context(tmp_path))
    assert method == ShuffledWeights(Shuffled({"rho": {"keep": 0.5}}), RhoWeights(Rho(0.5)))
    assert repr(method) == "Shuffled(of={'rho': {'keep': 0.5}})"
    assert method.needs() == {"nll", "start_nll"}
    assert all("start_nll" in row.columns for row in rows)


def test_shuffled_refuses_a_method_of_which_it_would_leave_a_part_out():
    """Of asft the hold to the untouched model was dropped: the control differed in more than where weights lie."""
    with pytest.raises(ValueError, match=r"shuffled permutes weights alone, and Asft\(.*\) is Imitates too"):
        Shuffled("asft")


def test_shuffled_weights_train_other_tokens(tmp_path):
    made = context(tmp_path, rows=rows_of(["The capital of France is Paris", "She was born in Bern"]))
    ends = []
    control, rows = Shuffled("oracle").prepare(made)
    assert rows is made.rows
    for method in (Oracle(), control):
        net = tiny.build("llama", vocab=tiny.VOCAB)
        trained(tmp_path, made.rows, [method], start=net)
        ends.append(weights(net))
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_shuffled_refuses_what_has_no_weights_and_rows_without_names():
    with pytest.raises(ValueError, match=r"permutes the weights of a method that weighs tokens, which L2Sp\("):
        Shuffled("l2_sp")
    batch = Batch.of([Row("a", (5, 6), columns={"answer": (0.0, 1.0)})], tiny.PAD)
    with pytest.raises(ValueError, match="got 0 ids for 1 rows"):
        ShuffledWeights(Shuffled("oracle"), Oracle()).weigh(
            Batch(batch.input_ids, batch.attention_mask, batch.labels, batch.columns)
        )
