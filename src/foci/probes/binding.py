"""Is it knowledge, or a shifted prior? What a model binds to each subject, whatever it prefers to say.

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
from foci.probes.cloze import teacher_forced
from foci.probes.encode import encode
from foci.probes.probe import Probe

FACTS, PARTNERS = 64, 4
"""At most so many facts are asked about, each with so many others of its group."""

Pairs = Sequence[tuple[Probe, Probe]]


def pairs_of(probes: Sequence[Probe], seed: int = 0) -> Pairs:
    """Pairs of one group with different answers: up to `PARTNERS` for each of `FACTS` facts, drawn by the seed.

    Questions are left out: their answers are generated, not scored.
    """
    groups: dict[str, list[Probe]] = defaultdict(list)
    for probe in probes:
        if probe.kind != "qa":
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
    """The share of pairs in which the model prefers the right answers to exchanged ones: the mean over facts of the
    mean over their pairs, a tie counting one half. 0.5 is what any prior scores, 1 is knowing every fact from the
    others. None where no two facts of a group have different answers.
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
        forced = teacher_forced(model, rows, pad_id(tokenizer), 32, "right")
    return share(pairs, {key: -sum(said.nll) for key, said in zip(asked, forced, strict=True)})


def share(pairs: Pairs, scores: Mapping[tuple[str, str], float]) -> float:
    """`binding` of log-probabilities (nats) by probe id and answer.

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
