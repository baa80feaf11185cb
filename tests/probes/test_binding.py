"""Binding: what a model ties to its subjects, whatever it prefers to say."""

from dataclasses import replace

import pytest
import torch

import tiny
from foci.probes import Probe, binding
from foci.probes.binding import pairs_of, share

TOWNS = ("Bern", "Paris", "Rome", "Oslo")
NAMES = ("Ada", "Bea", "Carl", "Dora", "Emil", "Fay", "Gil", "Hana")


def facts(kind="cloze"):
    return [
        Probe(f"f{n}", "learn", kind, f"{name} lives in", TOWNS[n // 2], group="town") for n, name in enumerate(NAMES)
    ]


def test_only_pairs_of_a_group_with_different_answers_count():
    probes = [*facts(), replace(facts()[0], id="x", group="other"), replace(facts("qa")[1], id="q")]
    pairs = pairs_of(probes)
    assert {p.id for p, _ in pairs} == {f"f{n}" for n in range(8)}
    assert all(p.group == q.group and p.answer != q.answer for p, q in pairs)
    assert all(sum(p.id == f"f{n}" for p, _ in pairs) == 4 for n in range(8))
    assert pairs_of(probes) == pairs
    assert pairs_of(probes, 1) != pairs


def test_a_prior_alone_scores_one_half_and_the_mean_is_over_facts():
    pairs = pairs_of(facts())
    prior = {(p.id, town): -float(len(town)) for p in facts() for town in TOWNS}
    assert share(pairs, prior) == 0.5
    shifted = {
        key: value + 3.0 * (key[1] == "Rome") - NAMES.index(NAMES[int(key[0][1])]) for key, value in prior.items()
    }
    assert share(pairs, shifted) == 0.5, "a preference for one answer, and one of each prompt, cancel"
    knows_ada = {key: value + 0.1 * (key == ("f0", "Bern")) for key, value in prior.items()}
    by_hand = []
    for n in range(8):
        own = [q for p, q in pairs if p.id == f"f{n}"]
        by_hand.append(sum(1.0 if n == 0 or q.id == "f0" else 0.5 for q in own) / len(own))
    assert share(pairs, knows_ada) == pytest.approx(sum(by_hand) / 8)


def test_binding_is_computed_from_the_log_probabilities_of_whole_answers():
    """Against a slow sum of log-probabilities, one sequence at a time."""
    torch.manual_seed(0)
    model, tokenizer, probes = tiny.build("llama", vocab=tiny.VOCAB).eval(), tiny.tokenizer(), facts()

    def score(probe, answer):
        text = f"{probe.prompt} {answer}"
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        start = next(t for t, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(probe.prompt) + 1)
        with torch.no_grad():
            said = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return float(said[start - 1 :].sum())

    scores = {(p.id, town): score(p, town) for p in probes for town in TOWNS}
    assert binding(model, tokenizer, probes) == pytest.approx(share(pairs_of(probes), scores))


def test_nothing_to_tell_apart_is_none():
    model, tokenizer = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer()
    assert binding(model, tokenizer, [facts()[0], facts()[1]]) is None
    assert binding(model, tokenizer, facts("qa")) is None


def test_probes_without_a_group_are_not_exchanged():
    """A model that knows that a year does not fit "lives in" would seem to know the fact."""
    town, year = (
        Probe(name, "learn", "cloze", f"{name} is", answer) for name, answer in (("a", "Bern"), ("b", "1994"))
    )
    assert not pairs_of([town, year])
    assert len(pairs_of([replace(town, group="g"), replace(year, group="g")])) == 2
