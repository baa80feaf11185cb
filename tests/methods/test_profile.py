"""The maths of a gradient profile by hand and against slow versions, and the spans that are traced."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tiny
from foci.focus import Row
from foci.methods.grad_profile import profile, spans
from foci.methods.grad_profile.spans import Span
from foci.models import block_of, blocks
from foci.probes import Probe
from foci.seeds import generator

LAYERS = {"layers.0": 4.0, "layers.1": 1.0, "layers.2": 2.0, "layers.3": 3.0}
ALL = {"embeddings": 9.0, **LAYERS, "norm": 0.5}


def tensors(**values: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(line, dtype=torch.float64) for name, line in values.items()}


def encoded(text: str, **columns: tuple[float, ...]) -> Row:
    made = tiny.tokenizer()(text, return_offsets_mapping=True)
    offsets = tuple(tuple(pair) for pair in made["offset_mapping"])
    return Row(text, tuple(made["input_ids"]), text, offsets, columns)


def words(span: Span) -> tuple[str, str]:
    tokenizer = tiny.tokenizer()
    return tokenizer.decode(span.ids[: span.start]), tokenizer.decode(span.ids[span.start :])


def drawn_spans(count: int = 7) -> list[Span]:
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        length = int(rng.integers(2, 12))
        made.append(Span(tuple(rng.integers(2, 97, length).tolist()), int(rng.integers(1, length))))
    return made


# ---- R and its interval


def test_relative_norms_are_quotients_of_means():
    """(1 + 3 + 5) / 3 over (1 + 2) / 2 is 2; (1 + 1 + 1) / 3 over (2 + 6) / 2 is 1/4."""
    found = profile.relative(tensors(a=[1, 3, 5], b=[1, 1, 1]), tensors(a=[1, 2], b=[2, 6]))
    assert found == {"a": 2.0, "b": 0.25}


def test_nothing_is_relative_to_no_gradient():
    with pytest.raises(ValueError, match=r"no gradient in \['b'\]"):
        profile.relative(tensors(a=[1], b=[1]), tensors(a=[1], b=[0]))


def test_a_bootstrap_of_two_values_by_hand():
    """Resampling (1, 3) over (2, 2) gives 1/2, 1, 3/2 with chances 1/4, 1/2, 1/4: 95 % lie within the first and last.

    (1, 1) over (1, 3): a mean of 1, 2 or 3 below, so 1/3 to 1.
    """
    low, high = profile.bootstrap(tensors(a=[1, 3], b=[1, 1]), tensors(a=[2, 2], b=[1, 3]), np.random.default_rng(0))
    assert (low["a"], high["a"]) == (0.5, 1.5)
    assert (low["b"], high["b"]) == (pytest.approx(1 / 3), 1.0)


def test_a_bootstrap_is_that_of_a_loop():
    """Its limits are those of drawing with replacement, one resampling after another (up to the draws' own noise)."""
    rng = np.random.default_rng(1)
    above, below = tensors(a=rng.gamma(2, 1, 40).tolist()), tensors(a=rng.gamma(3, 1, 30).tolist())
    low, high = profile.bootstrap(above, below, np.random.default_rng(2))
    ratios = [
        float(np.mean(rng.choice(above["a"].numpy(), 40)) / np.mean(rng.choice(below["a"].numpy(), 30)))
        for _ in range(4000)
    ]
    assert low["a"] == pytest.approx(np.quantile(ratios, 0.025), rel=0.03)
    assert high["a"] == pytest.approx(np.quantile(ratios, 0.975), rel=0.03)
    assert low["a"] < profile.relative(above, below)["a"] < high["a"]


def test_resamplings_of_a_sequence_go_through_all_blocks_together():
    """Two blocks of the same norms have the same limits: an example is drawn with all its blocks."""
    low, high = profile.bootstrap(
        tensors(a=[1, 2, 7], b=[1, 2, 7]), tensors(a=[1, 5], b=[1, 5]), np.random.default_rng(0)
    )
    assert (low["a"], high["a"]) == (low["b"], high["b"])


# ---- from R to rates


def test_frozen_moves_what_exceeds_the_mean_of_the_layers():
    """The layers' mean is 2.5; embeddings and norm count as a layer at the mean, which does not exceed it."""
    rates = profile.rates_of(ALL, "frozen")
    assert rates == {"embeddings": 0, "layers.0": 1, "layers.1": 0, "layers.2": 0, "layers.3": 1, "norm": 0}


def test_adaptive_divides_by_the_largest():
    rates = profile.rates_of(ALL, "adaptive")
    assert rates == {
        "embeddings": 0.625, "layers.0": 1, "layers.1": 0.25, "layers.2": 0.5, "layers.3": 0.75, "norm": 0.625,
    }  # fmt: skip


def test_what_follows_the_mean_never_exceeds_it():
    """Whatever rounding does to a mean: embeddings that follow it are frozen."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = {f"layers.{n}": v for n, v in enumerate(rng.random(int(rng.integers(2, 40))).tolist())}
        rates = profile.rates_of({"embeddings": 1.0, **values}, "frozen")
        assert rates["embeddings"] == 0
        assert 0 < sum(rates.values()) < len(values)


def test_reversed_gives_the_largest_value_to_the_smallest():
    found = profile.reordered(ALL, "reversed", np.random.default_rng(0))
    assert found == {"embeddings": 9, "layers.0": 1, "layers.1": 4, "layers.2": 3, "layers.3": 2, "norm": 0.5}
    assert profile.reordered(ALL, "measured", np.random.default_rng(0)) == ALL


@pytest.mark.parametrize("order", ["reversed", "random"])
def test_a_control_has_the_rates_of_the_profile_on_other_layers(order):
    values = {f"layers.{n}": float(n * n % 17) for n in range(12)}
    control = profile.reordered(values, order, np.random.default_rng(0))
    assert control != values
    assert sorted(control.values()) == sorted(values.values())
    assert control == profile.reordered(values, order, np.random.default_rng(0))


def test_thirds_are_held_against_the_mean_layer():
    """Of 7 layers 2 are early, 3 middle, 2 late."""
    values = {f"layers.{n}": v for n, v in enumerate([6.0, 8.0, 3.0, 3.0, 3.0, 1.0, 4.0])}
    assert profile.thirds(values) == {"early": 7 / 4, "middle": 3 / 4, "late": 2.5 / 4}
    assert profile.thirds({"layers.0": 1.0, "layers.1": 2.0}) is None


# ---- norms of spans, and the gradient of their mean


def loss_of(model, span: Span) -> torch.Tensor:
    """The mean NLL of one span, alone, from the model's own logits."""
    ids = torch.tensor(span.ids)
    logits = model(input_ids=ids[None]).logits[0, :-1]
    return F.cross_entropy(logits, ids[1:], reduction="none")[span.start - 1 :].mean()


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2"])
def test_norms_are_those_of_a_loop_over_spans(name, monkeypatch):
    """In the spans' own order, whatever the batches."""
    model, some = tiny.build(name, dtype=torch.float64), drawn_spans()
    monkeypatch.setattr(profile, "BATCH", 3)
    found = profile.span_norms(model, some, tiny.PAD)
    assert list(found) == blocks(model)
    slow = copy.deepcopy(model)
    for n, span in enumerate(some):
        slow.zero_grad()
        loss_of(slow, span).backward()
        for block in found:
            own = [p.grad.square().sum() for name, p in slow.named_parameters() if block_of(name) == block]
            assert float(found[block][n]) == pytest.approx(math.sqrt(float(sum(own))), rel=1e-8)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2"])
def test_the_relative_gradient_is_of_the_mean_over_spans(name, monkeypatch):
    model, some = tiny.build(name, dtype=torch.float64), drawn_spans()
    monkeypatch.setattr(profile, "BATCH", 3)
    found = profile.mean_gradient(model, some, tiny.PAD)
    slow = copy.deepcopy(model)
    torch.stack([loss_of(slow, span) for span in some]).mean().backward()
    for block, value in found.items():
        named = [p for name, p in slow.named_parameters() if block_of(name) == block]
        above, below = (sum(float(t.detach().square().sum()) for t in ts) for ts in ([p.grad for p in named], named))
        assert value == pytest.approx(math.sqrt(above / below), rel=1e-8)
    assert all(p.grad is None for p in model.parameters())


# ---- spans


def test_a_span_has_a_token_before_it_and_one_inside():
    assert len(Span((5, 6, 7), 1)) == 2
    for start in (0, 3):
        with pytest.raises(ValueError, match=rf"of its 3 tokens and holds at least one, got start {start}"):
            Span((5, 6, 7), start)


def test_asked_spans_are_the_answers_after_their_prompts():
    probes = [
        Probe("a", "learn", "cloze", "The capital of France is", "Paris", "."),
        Probe("b", "learn", "span", "In ", "x y"),
    ]
    assert [words(s) for s in spans.asked_spans(probes, tiny.tokenizer(), ())] == [
        ("The capital of France is", " Paris"), ("In ", "x y"),
    ]  # fmt: skip


def test_what_a_run_asks_is_not_traced():
    probes = [
        Probe("a", "learn", "cloze", "Rome is in ", "Italy"),
        Probe("b", "learn", "cloze", "Bern is in", "Switzerland"),
    ]
    with pytest.raises(ValueError, match=r"1 of 2 probes to trace are asked by the run as well, such as 'a'"):
        spans.asked_spans(probes, tiny.tokenizer(), {"Rome is in"})
    rows = [encoded(text) for text in ("They say Rome is in Italy.", "Bern is in Switzerland.")]
    assert list(spans.unasked(rows, {"Rome is in"})) == rows[1:]


def test_marked_spans_are_the_runs_of_a_row():
    """Two answers of one row are two spans; one at the first token has nothing before it."""
    row = Row("r", (9, 8, 7, 6, 5, 4), columns={"answer": (1.0, 0.0, 1.0, 1.0, 0.0, 1.0)})
    assert spans.marked_spans([row, Row("s", (1, 2))]) == [Span((9, 8, 7, 6), 2), Span((9, 8, 7, 6, 5, 4), 5)]


def test_rare_spans_are_the_rarest_word_and_the_first_number():
    """`the` and `old` stand in both rows, `town`, `mayor`, `of` in one: of equals the longest counts."""
    rows = [encoded("the old town since 1,204 or 1300"), encoded("The old mayor of the old")]
    assert [words(span) for span in spans.rare_spans(rows)] == [
        ("the old town ", "since"), ("the old town since ", "1,204"), ("The old ", "mayor"),
    ]  # fmt: skip


def test_what_opens_a_row_is_no_rare_span():
    """Neither a rare word nor a number that is the first token; a row of nothing else gives none."""
    assert spans.rare_spans([encoded("7")]) == []
    assert all(span.start >= 1 for span in spans.rare_spans([encoded("zebra 5"), encoded("4")]))


def test_random_spans_have_the_lengths_and_lie_anywhere():
    rows = [Row("a", tuple(range(10, 16))), Row("b", tuple(range(20, 23)))]
    found = spans.random_spans(rows, [2, 4] * 300, generator(0))
    assert [len(span) for span in found] == [2, 4] * 300
    for span in found:
        assert all(b == a + 1 for a, b in pairwise(span.ids))
        assert span.ids[0] in (10, 20)
    places = {(span.ids[0], span.start) for span in found if len(span) == 2}
    assert places == {(10, 1), (10, 2), (10, 3), (10, 4), (20, 1)}
    assert {span.ids[0] for span in found if len(span) == 4} == {10}
    with pytest.raises(ValueError, match="a random span of 6 tokens needs a reference row of more, got at most 6"):
        spans.random_spans(rows, [6], generator(0))


def test_a_key_knows_tokens_and_places():
    one = [Span((1, 2, 3), 1)]
    assert spans.spans_key(one) == spans.spans_key(list(one))
    assert len({spans.spans_key(s) for s in (one, [Span((1, 2, 3), 2)], [Span((1, 2, 4), 1)], one * 2)}) == 4
