"""Span perplexity of updated and of unchanged facts: the measure of arXiv 2411.04448 on TempLAMA and ECBD.

    micro = exp(mean over probes of the probe's mean NLL)                       (nats per token of the span)
    macro = exp(mean over groups of the mean over the group's probes)           (every relation counts alike)

A probe without a group is one by itself, so that micro and macro are the same where there are no groups. Lower is
better. Unlike in `retained`, all unchanged probes count, also those that the untouched model answers wrongly.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

from foci.probes.asking import Answer

SIDES = {"updated": "learn", "unchanged": "retain"}
"""The names of probes to learn and to retain: the corpus updates what is to be learned."""


def span_perplexity(answers: Sequence[Answer]) -> dict[str, dict[str, float] | None]:
    """Returns {"updated": {"micro": ..., "macro": ...}, "unchanged": ...}; None where there is no such probe."""
    return {side: _of([a for a in answers if a.role == role]) for side, role in SIDES.items()}


def _of(answers: Sequence[Answer]) -> dict[str, float] | None:
    if not answers:
        return None
    groups: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        groups[f"group {answer.group}" if answer.group else f"probe {answer.probe_id}"].append(answer.nll)
    means = [_mean(group) for group in groups.values()]
    return {"micro": _exp(_mean([answer.nll for answer in answers])), "macro": _exp(_mean(means))}


def _exp(nats: float) -> float:
    """Returns e ** nats, at most that of 700 nats: a model that diverged has more than a float holds."""
    return math.exp(min(nats, 700.0))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
