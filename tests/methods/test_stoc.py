"""STOC: spans by attention received, their continuations, the controls, and what the published code gets wrong."""

from collections import Counter

import numpy as np
import pytest
import torch

import tiny
from foci.corpus.tokens import leading
from foci.focus import Context, Row
from foci.methods import _rehearsal, build
from foci.methods._rehearsal import Prompts, continued
from foci.methods.stoc import Stoc, attended, best_spans, uniform_share
from foci.seeds import generator
from training import trained


def new_rows(lengths: tuple[int, ...] = (24, 9, 40)) -> list[Row]:
    return [Row(f"new-{n}", tuple((7 * n + 3 * t) % 300 + 5 for t in range(m))) for n, m in enumerate(lengths)]


def context(folder, **changes) -> Context:
    net = tiny.build("llama", vocab=tiny.VOCAB)
    settings = {"model": net, "tokenizer": tiny.tokenizer(), "rows": new_rows(), "folder": folder, "seed": 2}
    return Context(**(settings | changes))


def test_the_uniform_share_by_hand():
    """Of 4 tokens, without the first: (1 + 1/2 + 1/3) / 3 = 11/18, (1/2 + 1/3) / 2 = 5/12, 1/3."""
    assert uniform_share(4).tolist() == pytest.approx([1.0, 11 / 18, 5 / 12, 1 / 3])
    assert uniform_share(2).tolist() == [1.0, 1.0]
    slow = [sum(1 / i for i in range(j, 50)) / (50 - j) for j in range(1, 50)]
    assert uniform_share(50)[1:].tolist() == pytest.approx(slow)


def published_starts(attention: np.ndarray, length: int, count: int) -> list[int]:
    """The choice of the published code (Real/generate_replay_stoc.py) from one mean map, (query, key)."""
    size = len(attention)
    scores = attention.sum(0) / np.arange(1, size + 1)
    sums = np.zeros(size - length)  # the last span is missing
    for i in range(length):
        sums += scores[i : size - length + i]
    used, found = np.zeros(len(sums), dtype=bool), []
    for _ in range(count):
        best = int(np.where(used, -1, sums).argmax())
        found.append(best)
        used[best : best + length] = True  # spans that begin before it may still overlap it
    return sorted(found)


def uniform(size: int) -> np.ndarray:
    return np.tril(np.ones((size, size))) / np.arange(1, size + 1)[:, None]


def test_the_published_code_prefers_the_beginning_and_lets_spans_overlap():
    size = 100
    scores = uniform(size).sum(0) / np.arange(1, size + 1)
    assert scores[:10].sum() / scores[-10:].sum() > 400  # attention is the same everywhere
    assert published_starts(uniform(size), 10, 3) == [0, 10, 20]
    lump = np.zeros((40, 40))
    lump[-1, 10:30] = _hill()
    first, second = published_starts(lump, 10, 2)
    assert second - first < 10  # the same tokens twice
    ours = best_spans(lump.sum(0).tolist(), 10, 2, [True] * 40)
    assert ours[1] - ours[0] >= 10


def _hill() -> np.ndarray:
    """Attention on tokens 10 to 29 that falls off to both sides of 20, after the published division."""
    return np.arange(11, 31) * (10.0 - np.abs(np.arange(10, 30) - 20))


def test_best_spans_by_hand():
    scores = [0, 1, 9, 9, 1, 5, 5, 0]
    everywhere = [True] * 8
    assert best_spans(scores, 2, 1, everywhere) == [2]
    assert best_spans(scores, 2, 2, everywhere) == [2, 5]
    assert best_spans(scores, 2, 9, everywhere) == [0, 2, 5]
    assert best_spans(scores, 3, 2, [False, False, False, True, True, True, True, False]) == [3]
    assert best_spans([1, 1, 1, 1], 2, 2, [True] * 4) == [0, 2]
    assert best_spans([1, 1], 3, 1, [True] * 2) == []


@pytest.mark.parametrize("seed", range(4))
def test_best_spans_equal_a_slow_search(seed):
    rng = np.random.default_rng(seed)
    scores, allowed = rng.random(30), rng.random(30) < 0.9
    taken, found = set(), []
    while len(found) < 4:
        free = [s for s in range(26) if all(allowed[t] and t not in taken for t in range(s, s + 5))]
        if not free:
            break
        best = max(free, key=lambda s: scores[s : s + 5].sum())
        found.append(best)
        taken |= set(range(best, best + 5))
    assert best_spans(scores.tolist(), 5, 4, allowed.tolist()) == sorted(found)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_scores_equal_those_of_whole_maps(name):
    """Whole float64 maps of all layers and heads, the first token taken out and each row scaled to sum to 1."""
    net = tiny.build(name, vocab=tiny.VOCAB, dtype=torch.float64, attention="eager")
    rows = new_rows((12, 7))
    found = attended(net, tiny.tokenizer(), rows)
    for row, scores in zip(rows, found, strict=True):
        with torch.no_grad():
            maps = torch.stack(net(torch.tensor([row.input_ids]), output_attentions=True).attentions)[:, 0]
        maps = maps[..., 1:, 1:] / maps[..., 1:, 1:].sum(-1, keepdim=True)
        mean, size = maps.mean((0, 1)).tolist(), len(row)
        for j in range(1, size):
            share = sum(mean[i - 1][j - 1] for i in range(j, size)) / (size - j)
            alike = sum(1 / i for i in range(j, size)) / (size - j)
            assert scores[j] == pytest.approx(share / alike, rel=1e-5)
        assert scores[0] == 0


def test_under_uniform_attention_every_token_scores_1():
    net = tiny.build("llama", vocab=tiny.VOCAB)
    with torch.no_grad():
        for layer in net.model.layers:
            layer.self_attn.q_proj.weight.zero_()
    (scores,) = attended(net, tiny.tokenizer(), new_rows((30,)))
    assert scores[1:] == pytest.approx([1.0] * 29, abs=1e-5)


# --- continuations ---


def test_a_continuation_begins_with_its_prompt_whatever_the_order_of_lengths():
    net, prompts = tiny.build("llama", vocab=tiny.VOCAB), [(9, 8, 7), (5,), (9, 8, 7), (44, 3)]
    rows = continued(net, tiny.tokenizer(), Prompts(prompts, list("abcd")), 9, seed=3)
    assert [row.source for row in rows] == list("abcd")
    for row, prompt in zip(rows, prompts, strict=True):
        assert row.input_ids[: len(prompt)] == prompt
        assert len(prompt) < len(row) <= 9
    assert rows[0].input_ids != rows[2].input_ids
    assert rows == continued(net, tiny.tokenizer(), Prompts(prompts, list("abcd")), 9, seed=3)


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_the_next_token_is_drawn_from_the_model_under_the_penalty(penalty):
    """4000 draws after one prompt against the probabilities worked out from the definition."""
    net, prompt = tiny.build("llama", vocab=tiny.VOCAB), (9, 8, 7)
    with torch.no_grad():
        net.lm_head.weight[:9] *= 12  # some likely tokens are in the prompt
        logits = net(torch.tensor([prompt])).logits[0, -1].double().tolist()
    for token in set(prompt):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    expected = np.exp(logits - np.max(logits))
    expected /= expected.sum()
    rows = continued(net, tiny.tokenizer(), Prompts([prompt] * 4000, [""] * 4000), 4, seed=1, penalty=penalty)
    drawn = Counter(row.input_ids[3] for row in rows)
    for token in np.argsort(-expected)[:5].tolist():
        error = (expected[token] * (1 - expected[token]) / 4000) ** 0.5
        assert drawn[token] / 4000 == pytest.approx(expected[token], abs=4 * error + 1e-3)


def test_the_rows_are_continued_spans_of_the_new_rows(tmp_path):
    made = context(tmp_path)
    method, rows = build("stoc").prepare(made)
    assert rows is made.rows
    scores = attended(made.model, made.tokenizer, made.rows)
    expected = []
    for row, line in zip(made.rows, scores, strict=True):
        length = min(10, len(row) - 1)
        for start in best_spans(line, length, 3, [False] + [True] * (len(row) - 1)):
            expected += [row.input_ids[start : start + length]] * 3
    assert len(method.pool.rows) == len(expected) == 3 * (2 + 1 + 3)
    for row, span in zip(method.pool.rows, expected, strict=True):
        assert row.input_ids[: len(span)] == span
        assert len(span) < len(row) <= 24  # the new rows' mean length
    assert len(method.mix(0, generator(0))) == 3
    twice, _ = build({"stoc": {"ratio": 2.0, "samples": 1}}).prepare(context(tmp_path / "2"))
    assert len(twice.mix(0, generator(0))) == 6


def test_special_tokens_are_in_no_span_and_what_begins_a_text_begins_a_prompt(tmp_path):
    tokenizer = tiny.with_first_token()
    assert leading(tokenizer) == (tiny.EOS,)
    assert leading(tiny.tokenizer()) == ()
    ids = (tiny.EOS, *range(20, 32), tiny.EOS)
    pool = Stoc(samples=1).prepare(context(tmp_path, tokenizer=tokenizer, rows=[Row("r", ids)]))[0].pool
    (row,) = pool.rows
    assert row.input_ids[0] == tiny.EOS
    assert tiny.EOS not in row.input_ids[1:11]
    with pytest.raises(ValueError, match="found no span to continue in 1 row;"):
        Stoc().prepare(context(tmp_path / "none", rows=[Row("r", (9, tiny.EOS))]))


def test_the_controls_choose_other_spans(tmp_path):
    prompts = {}
    for choose in ("attended", "random", "first"):
        pool = Stoc(choose=choose, samples=1).prepare(context(tmp_path / choose, rows=new_rows((60,))))[0].pool
        prompts[choose] = [row.input_ids[:10] for row in pool.rows]
        assert len(prompts[choose]) == 3
    ids = new_rows((60,))[0].input_ids
    assert prompts["first"] == [ids[1:11], ids[11:21], ids[21:31]]
    assert len({tuple(spans) for spans in prompts.values()}) == 3


def test_more_than_the_limit_are_not_drawn_and_what_was_kept_is_used_again(tmp_path, monkeypatch):
    made = context(tmp_path)
    first = Stoc(limit=5).prepare(made)[0].pool
    assert len(first.rows) == 5
    monkeypatch.setattr(_rehearsal, "_drawn", lambda *_: pytest.fail("drawn again"))
    assert Stoc(limit=5).prepare(made)[0].pool == first
    with pytest.raises(ValueError, match=r"continuations.parquet is stale.*\(choose: 'attended' then, 'first' now\)"):
        Stoc(limit=5, choose="first").prepare(made)


def test_training_reads_them(tmp_path):
    made = context(tmp_path / "offline")
    method, rows = Stoc(samples=1).prepare(made)
    with_it, _ = trained(tmp_path, rows, [method], start=tiny.build("llama", vocab=tiny.VOCAB))
    without, _ = trained(tmp_path, rows, [], start=tiny.build("llama", vocab=tiny.VOCAB))
    assert any(not torch.equal(a, b) for a, b in zip(with_it.parameters(), without.parameters(), strict=True))


def test_settings_out_of_range():
    for wrong in ({"ratio": 0.0}, {"penalty": 0.0}, {"ratio": float("inf")}):
        with pytest.raises(ValueError, match="stoc expected a finite ratio and penalty above 0"):
            Stoc(**wrong)
    for wrong in ({"spans": 0}, {"length": 0}, {"samples": 0}, {"limit": 0}):
        with pytest.raises(ValueError, match=r"of at least 1.*3, 10 and 3 are the paper's"):
            Stoc(**wrong)
    with pytest.raises(ValueError, match="setting 'choose' expected"):
        build({"stoc": {"choose": "last"}})


def test_a_model_whose_attention_cannot_be_watched_is_told_before_training():
    net = tiny.build("llama")
    net.config._attn_implementation = "something_else"
    with pytest.raises(ValueError, match=r"something_else.*foci cannot watch"):
        Stoc().check_model(net)
    Stoc(choose="random").check_model(net)
