"""Holds some probes out: they choose a point of training and are not reported."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from foci.probes.probe import Probe
from foci.seeds import drawn

Fact = tuple[str, str]
"""A role and the name of a fact."""


def fact(group: str, answer: str, probe_id: str) -> str:
    """Returns a name that all probes of one fact share: those of one group with the same answer.

    A probe without a group is a fact by itself.
    """
    return f"{group}/{answer}" if group else probe_id


def facts_held_out(facts: Iterable[Fact], share: float, seed: int) -> set[Fact]:
    """Returns a share of the facts to learn, and of those to retain, chosen by the seed and the fact's name.

    Where there are two of a kind or more, at least one is held out and at least one is not. A fact's side depends
    neither on the order of a file nor on the machine.
    """
    known = set(facts)
    chosen: set[Fact] = set()
    for role in {role for role, _ in known} if share else ():
        names = sorted(name for own, name in known if own == role)
        count = max(0, min(max(1, round(share * len(names))), len(names) - 1))
        chosen |= {(role, name) for name in drawn(names, seed, lambda name: f"held out/{name}")[:count]}
    return chosen


def hold_out(probes: Sequence[Probe], share: float, seed: int) -> list[Probe]:
    """Returns the probes, with a share of the facts to learn, and of those to retain, held out.

    All probes of a fact are on one side.
    """
    names = [(p.role, fact(p.group, p.answer, p.id)) for p in probes]
    open_ = [name for name, probe in zip(names, probes, strict=True) if not probe.held_out]
    chosen = facts_held_out(open_, share, seed)
    return [replace(p, held_out=True) if name in chosen else p for p, name in zip(probes, names, strict=True)]
