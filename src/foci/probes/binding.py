"""Measures what a model knows of each subject, apart from how often it says an answer (its prior).

A model that has only learned which answers are frequent says them of everybody. For two facts (p, a) and (q, b) of one
group with different answers, and s(p, a) = log-probability of all of a's tokens after p,

    D = s(p, a) + s(q, b) - s(p, b) - s(q, a)

is above 0 where the model prefers the answers as they are to the answers exchanged. A preference for an answer adds the
same to s(p, a) and s(q, a), a preference of a prompt the same to s(p, a) and s(p, b): both cancel.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.models.forward import answering, pad_id
from foci.probes.encode import encode
from foci.probes.forced import teacher_forced
from foci.probes.probe import Probe, kind_of

FACTS, PARTNERS = 64, 4
"""The most facts that are asked about, and the most other facts of its group that each is paired with."""

Pairs = Sequence[tuple[Probe, Probe]]


def pairs_of(probes: Sequence[Probe], seed: int = 0) -> Pairs:
    """Returns pairs of one group with different answers: up to `PARTNERS` for each of `FACTS` facts, drawn by the seed.

    Kinds whose answers are generated (qa) are left out: no probability decides whether they are right. So are probes
    without a group: to exchange a town for a year shows that the kind of answer is known, not the fact.
    """
    groups: dict[str, list[Probe]] = defaultdict(list)
    for probe in probes:
        if probe.group and not kind_of(probe.kind).generated:
            groups[probe.group].append(probe)
    rng = Random(f"binding/{seed}")  # noqa: S311
    found = []
    facts = [probe for some in groups.values() for probe in some]
    for probe in sorted(facts, key=lambda _: rng.random())[:FACTS]:
        others = [other for other in groups[probe.group] if other.answer != probe.answer]
        found += [(probe, other) for other in sorted(others, key=lambda _: rng.random())[:PARTNERS]]
    return found


def binding(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, probes: Sequence[Probe], *, seed: int = 0
) -> float | None:
    """Returns the share of pairs in which the model prefers the right answers to exchanged ones.

    It is the mean over facts of the mean over their pairs; a tie counts one half. Any prior gives 0.5; a model that
    tells every fact from the others scores 1. None where no two facts of a named group have different answers.
    """
    pairs = pairs_of(probes, seed)
    if not pairs:
        return None
    asked: dict[tuple[str, str], Probe] = {}
    for p, q in pairs:
        for probe, answer in ((p, p.answer), (q, q.answer), (p, q.answer), (q, p.answer)):
            asked[probe.id, answer] = replace(probe, answer=answer, aliases=())
    rows = encode(list(asked.values()), tokenizer)
    with answering(model, torch.float32):
        forced = teacher_forced(model, rows, pad_id(tokenizer))
    return share(pairs, {key: -sum(said.nll) for key, said in zip(asked, forced, strict=True)})


def share(pairs: Pairs, scores: Mapping[tuple[str, str], float]) -> float:
    """Returns `binding` from log-probabilities (nats) by probe id and answer.

    >>> p, q = (Probe(name, "learn", "cloze", f"{name} is", answer) for name, answer in (("p", "a"), ("q", "b")))
    >>> prior = {("p", "a"): -1.0, ("q", "a"): -1.0, ("p", "b"): -5.0, ("q", "b"): -5.0}
    >>> share([(p, q)], prior), share([(p, q)], prior | {("q", "b"): -4.9})
    (0.5, 1.0)
    """
    by_fact: dict[str, list[float]] = defaultdict(list)
    for p, q in pairs:
        apart = scores[p.id, p.answer] + scores[q.id, q.answer] - scores[p.id, q.answer] - scores[q.id, p.answer]
        by_fact[p.id].append(0.5 if abs(apart) < 1e-6 else float(apart > 0))
    return sum(sum(found) / len(found) for found in by_fact.values()) / len(by_fact)
