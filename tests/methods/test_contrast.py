"""Contrast: ranks, chances, alignment, controls, copies, two tokenizers, and what the published code computes."""

import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

import small
import tiny
from foci import models
from foci.attention import received
from foci.corpus.characters import gathered, spread
from foci.focus import Batch, Context, Plan, Row
from foci.learn.offline import prepare
from foci.methods import build
from foci.methods.contrast.corpus_attention import AttentionQuery, attention_received, before_answers
from foci.methods.contrast.dropping import RowAttention, chances, drop_probability, ranks
from foci.methods.contrast.method import DROP, Contrast, ContrastEdits
from foci.methods.experimental.early_late import EarlyLate
from foci.models.forward import device_of
from foci.seeds import generator
from foci.training.dataset import MixedDataset, RowDataset, edited
from training import trained

TEXTS = ["Ada lives in Rome, and works there.", "Ben was born in Oslo in May.", "Cy works for Acme. He likes it, too."]


def row_of(text, tokenizer, number=0, answer=None):
    """A row with its EOS token; `answer` is marked in the column."""
    made = tokenizer(text, return_offsets_mapping=True)
    offsets = [*(tuple(pair) for pair in made["offset_mapping"]), (0, 0)]
    columns = {}
    if answer:
        start, end = text.index(answer), text.index(answer) + len(answer)
        columns["answer"] = tuple(float(a < end and b > start) for a, b in offsets)
    return Row(f"r{number}", (*made["input_ids"], tiny.EOS), text, tuple(offsets), columns, f"texts:{number + 1}")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two tiny models of one tokenizer."""
    folder = tmp_path_factory.mktemp("pair")
    tiny.save_model(folder / "large", seed=1)
    tiny.save_model(folder / "small", seed=2)
    return folder


@pytest.fixture
def context(files, tmp_path):
    tokenizer = tiny.tokenizer()
    rows = [row_of(text, tokenizer, n) for n, text in enumerate(TEXTS)]
    return Context(tiny.build("llama", vocab=tiny.VOCAB), tokenizer, rows, tmp_path / "scores", 0)


def contrast(files, **changes):
    return Contrast(str(files / "large"), str(files / "small"), **{"dtype": "float32", **changes})


def seen(large, small, free=None, name="r"):
    free = [True] * len(large) if free is None else free
    return RowAttention(name, np.array(large), np.array(small), np.array(free))


# --- from attention to chances ---


def test_chances_by_hand():
    """d = .1, -.2, .3, 0: ranks 1, 3, 0, 2; the third token stays whatever happens."""
    row = seen([0.4, 0.1, 0.5, 0.2], [0.3, 0.3, 0.2, 0.2])
    (found,) = chances([row], "difference", 0.6, 0.5, 0)
    by_hand = [0.6 * (1 - np.exp(-0.5 * r)) for r in (1, 3, 0, 2)]
    assert found.tolist() == pytest.approx(by_hand, abs=1e-15)
    assert by_hand[0] == pytest.approx(0.23608160417242)
    assert found[2] == 0


def test_ties_are_ranked_in_order_and_ranks_go_down():
    assert ranks([0.0, 2.0, 2.0, -1.0]).tolist() == [2, 0, 1, 3]
    assert drop_probability(0, 0.7, 0.05) == 0
    assert drop_probability(74, 0.7, 0.05) == pytest.approx(0.7 * (1 - np.exp(-3.7)))


def test_what_is_protected_stays_and_keeps_its_rank():
    row = seen([0.5, 0.4, 0.3], [0.0, 0.0, 0.0], [True, False, True])
    (found,) = chances([row], "difference", 0.6, 0.5, 0)
    assert found.tolist() == pytest.approx([0, 0, 0.6 * (1 - np.exp(-1.0))])


def many(count=30):
    rng = np.random.default_rng(0)
    made = []
    for n in range(count):
        size = int(rng.integers(8, 40))
        made.append(seen(rng.random(size), rng.random(size), rng.random(size) < 0.8, f"row {n}"))
    return made


@pytest.mark.parametrize("by", ["reversed", "large", "small", "random", "random_ranks", "forward", "backward"])
def test_controls_drop_as_many_tokens(by):
    rows = many()
    own, other = chances(rows, "difference", 0.6, 0.03, 0), chances(rows, by, 0.6, 0.03, 0)
    assert sum(p.sum() for p in other) == pytest.approx(sum(p.sum() for p in own), rel=1e-12)
    assert any(not np.allclose(a, b) for a, b in zip(own, other, strict=True))
    assert all(p[~row.free].sum() == 0 for p, row in zip(other, rows, strict=True))


def test_what_controls_rank():
    row = seen([0.1, 0.4, 0.3], [0.2, 0.1, 0.3])
    orders = {
        by: np.argsort(chances([row], by, 0.6, 0.5, 0)[0]).tolist()
        for by in ("difference", "reversed", "large", "small", "forward", "backward")
    }
    assert orders == {
        "difference": [1, 2, 0], "reversed": [0, 2, 1], "large": [1, 2, 0], "small": [2, 0, 1],
        "forward": [0, 1, 2], "backward": [2, 1, 0],
    }  # fmt: skip
    (random,) = chances([row], "random", 0.6, 0.5, 0)
    assert random.tolist() == pytest.approx([np.mean([0.6 * (1 - np.exp(-0.5 * r)) for r in range(3)])] * 3)
    rows = many()
    one, same, other = (chances(rows, "random_ranks", 0.6, 0.03, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_oracle_keeps_names_and_answers_and_drops_as_much():
    """d's mean rate over three tokens all falls on the one that is neither, if it may go."""
    row = seen([0.1, 0.4, 0.3], [0.2, 0.1, 0.3])
    own = sum(0.6 * (1 - np.exp(-0.5 * r)) for r in range(3))
    (found,) = chances([replace(row, plain=np.array([False, True, False]))], "told", 0.6, 0.5, 0)
    assert found.tolist() == pytest.approx([0, own, 0])
    stays = replace(row, plain=np.array([True, True, False]), free=np.array([False, True, True]))
    assert chances([stays], "told", 0.6, 0.5, 0)[0][[0, 2]].tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"dropped by 'told', with chances of at most 1 it is 0\.000"):
        chances([replace(row, plain=np.array([False, False, False]))], "told", 0.6, 0.5, 0)
    with pytest.raises(ValueError, match=r"nothing tells where those of row r are; give the corpus as \.jsonl lines"):
        chances([row], "told", 0.6, 0.5, 0)


@pytest.mark.parametrize("by", ["difference", "random", "backward"])
def test_a_rate_that_is_written_down_is_met(by):
    rows = many()
    found = chances(rows, by, 0.6, 0.03, 0, rate=0.15)
    assert sum(p.sum() for p in found) / sum(len(row.free) for row in rows) == pytest.approx(0.15)
    with pytest.raises(ValueError, match=rf"a share of 0.900 of the tokens should be dropped by '{by}'.* it is 0"):
        chances(rows, by, 0.6, 0.03, 0, rate=0.9)


def test_models_that_attend_alike_are_refused():
    with pytest.raises(ValueError, match=r"attend alike: .* all 1 rows"):
        chances([seen([0.2, 0.1], [0.2, 0.1])], "difference", 0.6, 0.03, 0)
    with pytest.raises(ValueError, match="none of the 2 tokens of 1 row may be dropped"):
        chances([seen([0.2, 0.1], [0.1, 0.1], [False, False])], "difference", 0.6, 0.03, 0)


# --- offline ---


def test_columns_are_the_formula(files, context):
    online, rows = contrast(files, beta=0.1).prepare(context)
    for row, before in zip(rows, context.rows, strict=True):
        assert (row.row_id, row.input_ids, row.offsets) == (before.row_id, before.input_ids, before.offsets)
        for side in ("large", "small"):
            net = models.load(str(files / side)).model
            batch = Batch.of([before], tiny.PAD).to(device_of(net))
            (alone,) = received(net, batch.input_ids, batch.attention_mask).tolist()
            assert row.columns[f"attention_{side}"] == pytest.approx(alone, abs=1e-6)
        d = np.subtract(row.columns["attention_large"], row.columns["attention_small"])
        assert row.columns["contrast"] == pytest.approx(d.tolist())
        order = sorted(range(len(row)), key=lambda t: -d[t])
        words = [before.text[a:b] for a, b in before.offsets]
        for rank, t in enumerate(order):
            stays = words[t] == "" or words[t].strip() in (",", ".")
            assert row.columns["contrast_rank"][t] == rank
            assert row.columns[DROP][t] == pytest.approx(0 if stays else 0.6 * (1 - np.exp(-0.1 * rank)), abs=1e-12)
    share = sum(sum(row.columns[DROP]) for row in rows) / sum(len(row) for row in rows)
    assert online.rate == pytest.approx(share, abs=1e-6)
    assert f"rate={online.rate}" in repr(online)
    told = json.loads((context.folder / "contrast.json").read_text())
    assert told["rate"] == pytest.approx(share)
    assert {row["row_id"] for row in told["rows"]} == {row.row_id for row in rows}
    assert told["rows"][0]["tokens"][-1] == "<eos>"
    assert told["rows"][0]["drop"] == pytest.approx(rows[0].columns[DROP], abs=1e-6)


def test_protected_words_are_a_setting(files, context):
    _, rows = contrast(files, protected=("Rome",)).prepare(context)
    drops = {row.text[a:b]: p for row in rows for (a, b), p in zip(row.offsets, row.columns[DROP], strict=True)}
    assert drops[","] > 0


def test_queries_and_the_first_token_are_settings(files, context):
    tokenizer = context.tokenizer
    rows = [row_of(TEXTS[0], tokenizer, 0, "Rome"), row_of(TEXTS[1], tokenizer, 1)]
    marked = replace(context, rows=rows)
    _, (later, _) = contrast(files, queries="later", scores=str(context.folder / "a")).prepare(marked)
    assert later.columns["attention_large"][-1] == 0
    _, (without, _) = contrast(files, without_first=True, scores=str(context.folder / "b")).prepare(marked)
    assert without.columns["attention_large"][0] == without.columns[DROP][0] == 0
    _, (asked, bare) = contrast(files, queries="answers", scores=str(context.folder / "c")).prepare(marked)
    query = rows[0].columns["answer"].index(1.0) - 1
    net = models.load(str(files / "large")).model
    batch = Batch.of(rows[:1], tiny.PAD).to(device_of(net))
    chosen = torch.zeros_like(batch.input_ids, dtype=torch.bool)
    chosen[0, query] = True
    by_hand = received(net, batch.input_ids, batch.attention_mask, queries=chosen)[0].tolist()
    assert asked.columns["attention_large"] == pytest.approx(by_hand, abs=1e-6)
    assert not any(asked.columns[DROP][query + 1 :])  # seen by no query: nothing says that they are easy
    assert not any(bare.columns[DROP])
    with pytest.raises(ValueError, match="attend alike"):
        contrast(files, queries="answers", scores=str(context.folder / "d")).prepare(replace(context, rows=rows[1:]))


def test_layers_are_a_setting_and_one_model_is_enough(files, context):
    online, rows = EarlyLate(beta=0.1).prepare(context)
    assert (online.settings.large_layers, online.settings.small_layers) == ((1,), (0,))
    batch = Batch.of(context.rows[:1], tiny.PAD)
    late = received(context.model, batch.input_ids, batch.attention_mask, layers=[1])[0].tolist()
    assert rows[0].columns["attention_large"] == pytest.approx(late, abs=2e-3)  # bfloat16 where the machine has it


def test_attention_is_kept_and_what_is_stale_is_refused(files, context, monkeypatch):
    method = contrast(files)
    _, first = method.prepare(context)
    monkeypatch.setattr("foci.methods.contrast.cached.attention_received", None)
    monkeypatch.setattr("foci.models.load", None)  # nor is a model loaded to read what it made
    _, again = replace(method, by="reversed", alpha=0.3).prepare(context)
    assert [r.columns["attention_large"] for r in again] == [r.columns["attention_large"] for r in first]
    with pytest.raises(ValueError, match=r"is stale, it was made for something else \(rows: "):
        method.prepare(replace(context, rows=context.rows[1:]))


def test_folders_of_kept_attention_know_a_query_by_its_first_name():
    """What older versions kept is found again: the key says `Look`, whatever the class is called."""
    assert AttentionQuery().key == "Look(queries='following', without_first=False, layers=None)"
    assert AttentionQuery("later", True, (1, 2)).key == "Look(queries='later', without_first=True, layers=(1, 2))"


def test_attention_made_elsewhere_needs_no_model(files, context, tmp_path):
    shutil.copytree(files, tmp_path / "pair")
    method = contrast(tmp_path / "pair", scores=str(tmp_path / "shared"))
    _, first = method.prepare(context)
    shutil.rmtree(tmp_path / "pair" / "large")
    _, again = method.prepare(replace(context, folder=tmp_path / "other"))
    assert again == first
    (
        tmp_path
        / "shared"
        / next(p.name for p in (tmp_path / "shared").iterdir() if "large" in p.name)
        / "part-00000.json"
    ).unlink()
    with pytest.raises(ValueError, match="no model at"):
        method.prepare(replace(context, folder=tmp_path / "other"))
    tiny.save_model(tmp_path / "pair" / "large", seed=3)
    with pytest.raises(ValueError, match="twice") as told:
        Contrast(str(tmp_path / "x"), str(tmp_path / "x"))
    assert "other layers" in str(told.value)


def test_another_model_of_the_same_name_is_refused(context, tmp_path):
    for seed, side in enumerate(("large", "small")):
        tiny.save_model(tmp_path / side, seed=seed)
    contrast(tmp_path).prepare(context)
    tiny.save_model(tmp_path / "large", seed=7)
    with pytest.raises(ValueError, match=r"stale.*fingerprint: "):
        contrast(tmp_path).prepare(context)


@pytest.mark.parametrize("setting", [{"rate": 1.0}, {"alpha": 0.0}, {"alpha": 1.1}, {"beta": 0.0}, {"copies": -1}])
def test_settings_that_cannot_work_are_refused(files, setting):
    with pytest.raises(ValueError, match=r"contrast expected a.* above 0 and .*got"):
        contrast(files, **setting)


def test_a_plan_holds_it_once(files, context):
    with pytest.raises(ValueError, match="row r0 has the column 'contrast_drop' already"):
        prepare(Plan([contrast(files), contrast(files, by="large")]), context)


# --- two tokenizers ---


def letters():
    """A tokenizer of single bytes that puts a token of its own before every text."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2}
    vocabulary |= {byte: n + 3 for n, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(kinds.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


def test_masses_go_through_characters_by_hand():
    """ "I am" as I| am and as I am|: what lies on letters is theirs, wherever the space belongs."""
    text = "I am"
    assert spread([0.25, 0.75], [(0, 1), (1, 4)], text) == [0.25, 0.0, 0.375, 0.375]
    assert gathered([0.25, 0.0, 0.375, 0.375], [(0, 2), (2, 3), (3, 4)]) == [0.25, 0.375, 0.375]
    assert spread([0.5, 0.5], [(0, 1), (1, 2)], "a ") == [0.5, 0.5]


def test_one_tokenizer_gives_the_plain_answer_through_characters(files, context):
    loaded = models.load(str(files / "large"), dtype="float32")
    plain = attention_received(loaded, context.rows, context.tokenizer, AttentionQuery())
    for row, line in zip(context.rows, plain, strict=True):
        back = gathered(spread(line, row.offsets, row.text), row.offsets)
        assert back[:-1] == pytest.approx(line[:-1], abs=1e-12)  # but for EOS, which stands for no text


def test_another_tokenizers_attention_adds_up_to_words(files, context):
    tokenizer, net = letters(), tiny.build("qwen3", vocab=tiny.VOCAB)
    loaded = models.Loaded(net, tokenizer, "letters", "f", 512, torch.float32)
    found = attention_received(loaded, context.rows, context.tokenizer, AttentionQuery())
    for row, line in zip(context.rows, found, strict=True):
        ids = torch.tensor([tokenizer(row.text)["input_ids"]])
        by_letter = received(net, ids, torch.ones_like(ids))[0].tolist()
        assert ids.shape[1] == len(row.text)
        for (a, b), mass in zip(row.offsets, line, strict=True):
            lead = next((at for at in range(a, b) if row.text[at].isspace()), None)
            assert mass == pytest.approx(sum(by_letter[a:b]), abs=1e-6), (row.text[a:b], lead)


def test_queries_before_answers_in_other_tokens():
    tokenizer, other = tiny.tokenizer(), letters()
    row = row_of(TEXTS[0], tokenizer, 0, "Rome")
    made = other(row.text, return_offsets_mapping=True)
    theirs = Row("r0", tuple(made["input_ids"]), row.text, tuple(tuple(p) for p in made["offset_mapping"]))
    assert before_answers(row, theirs) == [row.text.index("Rome") - 1]
    assert before_answers(row, row) == [row.columns["answer"].index(1.0) - 1]
    assert before_answers(replace(row, columns={}), row) == []


# --- online ---


def online(space=None, **changes):
    return ContrastEdits(Contrast("a", "b", **changes), rate=0.5, space=space)


def marked(length=20, chance=0.5, n=0):
    ids = tuple(range(2, 2 + length))
    return Row(f"m{n}", ids, columns={DROP: (chance,) * length, "at": tuple(range(length))})


def test_everything_aligned_goes_with_a_token():
    row = replace(marked(), offsets=tuple((n, n + 1) for n in range(20)), text="abcdefghijklmnopqrst")
    after = online().edit(row, generator(3))
    gone = generator(3).random(20) < 0.5
    assert 0 < gone.sum() < 20
    at = [n for n in range(20) if not gone[n]]
    assert after == row.take(at)
    assert after.columns["at"] == tuple(at)
    assert [after.text[a:b] for a, b in after.offsets] == [row.text[n] for n in at]


def test_tokens_go_as_often_as_they_should():
    chances_of = (0.0, 0.1, 0.5, 0.9) * 5
    row = Row("r", tuple(range(20)), columns={DROP: chances_of})
    kept = np.zeros(20)
    for n in range(2000):
        kept[list(online().edit(row, generator(n)).input_ids)] += 1
    assert np.abs(kept / 2000 - (1 - np.array(chances_of))).max() < 0.04
    assert (kept[::4] == 2000).all()


def test_two_tokens_stay_the_most_elusive_first():
    row = Row("r", (5, 6, 7), columns={DROP: (1.0, 0.9, 1.0)})
    lone = {online().edit(row, generator(n)).input_ids for n in range(40)}
    assert lone == {(5, 6)}
    with pytest.raises(ValueError, match="contrast reads the column 'contrast_drop', row x has no columns"):
        online().edit(Row("x", (1, 2)), generator(0))


def test_blanks_keep_the_length():
    method = online(blank=True, space=77)
    row, after = marked(), method.edit(marked(), generator(3))
    gone = generator(3).random(20) < 0.5
    assert after.input_ids == tuple(77 if lost else token for token, lost in zip(row.input_ids, gone, strict=True))
    assert (after.columns, after.row_id) == (row.columns, row.row_id)


def test_the_blank_is_the_tokenizers_space(files, context):
    made, _ = contrast(files, blank=True).prepare(context)
    assert context.tokenizer.decode([made.space]) == " "


def test_fresh_draws_at_every_reading():
    data = RowDataset([marked()], [online()], seed=1, copies=3)
    first = [data[n].input_ids for n in range(3)]
    data.set_epoch(1)
    assert len({*first, *(data[n].input_ids for n in range(3))}) == 6


@pytest.mark.parametrize("copies", [1, 11])
def test_a_fixed_set_of_copies_and_the_original(copies):
    """Whether an epoch reads each row 11 times or 11 epochs once, the same 11 versions are read equally often."""
    data = RowDataset([marked()], [online(copies=10)], seed=1, copies=copies)
    counts = {}
    for epoch in range(22 // copies):
        data.set_epoch(epoch)
        for n in range(len(data)):
            ids = data[n].input_ids
            counts[ids] = counts.get(ids, 0) + 1
    assert len(counts) == 11
    assert set(counts.values()) == {2}
    assert marked().input_ids in counts


def test_other_edits_after_the_original_are_not_skipped():
    row = marked()
    plain = edited(row, [online(copies=10), small.Dropped()], (0, 0, 0))
    assert plain == small.Dropped().edit(row, generator(0, 0, 0, row.row_id, 1))
    assert plain != row


def test_rehearsed_rows_are_read_whole():
    old = small.Old(tuple(small.rows(3, seed=9)), (3,))
    data = MixedDataset(RowDataset([marked()], [online()]), Plan([online(), old]), 1)
    assert {data[n].input_ids for n in range(1, 4)} == {row.input_ids for row in old.pool}


def test_it_trains(files, context, tmp_path):
    plan, rows = prepare(Plan([contrast(files, beta=0.3)]), context)
    _, losses = trained(tmp_path / "t", rows, plan.methods, start=tiny.build("llama", vocab=tiny.VOCAB))
    _, plain = trained(tmp_path / "p", context.rows, start=tiny.build("llama", vocab=tiny.VOCAB))
    assert losses != plain


def test_it_is_built_from_a_run_file():
    made = build({"contrast": {"large": "x", "small_layers": [0, 1], "by": "random", "copies": 10}})
    assert (made.small_layers, made.by, made.copies) == ((0, 1), "random", 10)
    with pytest.raises(ValueError, match="needs large"):
        build("contrast")


# --- what the published code (commit 283ad69) computes ---


def maps_of(model, length=24):
    ids = torch.randint(2, 97, (1, length), generator=torch.Generator().manual_seed(0))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(input_ids=ids, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    return ids, torch.stack(maps).mean((0, 1, 2)).double()


def test_the_published_score_is_the_position_of_a_token():
    """It sums the mean map over keys, where softmax rows sum to 1, and divides by i + 1: 1 / (i + 1) for every model
    and every text. What it means to compute, the sum over queries, differs between models.
    """
    scores, ours = [], []
    for name in ("llama", "gpt2", "qwen3"):
        model = tiny.build(name)
        ids, mean = maps_of(model)
        at = torch.arange(1, 25)
        published = mean.tril().sum(-1) / at
        torch.testing.assert_close(published, 1 / at.double(), atol=1e-6, rtol=0)
        scores.append(published)
        ours.append(received(model, ids, torch.ones_like(ids))[0].double())
        torch.testing.assert_close(ours[-1], mean.sum(0) / at.flip(0), atol=1e-6, rtol=0)
    for (a, b), (x, y) in zip(product(scores, scores), product(ours, ours), strict=True):
        assert float((a - b).abs().max()) < 1e-6
        assert x is y or float((x - y).abs().max()) > 1e-2
    rank = ranks(scores[0].numpy())
    assert rank.tolist() == list(range(24))  # "by attention" keeps early tokens: this is `by: forward`


def test_the_published_random_arm_keeps_with_the_chance_that_the_paper_drops_with():
    """Its threshold is alpha, and a token goes where a draw exceeds it: dropped with 1 - alpha. With attention the
    threshold is 1 - p(r), as in the paper. Ours drops at the contrast's own mean rate.
    """
    alpha, draws = 0.7, generator("published").random(20000)
    assert (draws > alpha).mean() == pytest.approx(1 - alpha, abs=0.02)
    rows = many()
    drops = chances(rows, "random", alpha, 0.05, 0)
    paper = [
        drop_probability(int(r), alpha, 0.05)
        for row in rows
        for r, f in zip(ranks(row.difference), row.free, strict=True)
        if f
    ]
    for row, drop in zip(rows, drops, strict=True):
        assert drop[row.free].tolist() == pytest.approx([np.mean(paper)] * int(row.free.sum()))
