"""The trials of `foci advise`: plans, rates and strengths to choose from, and the rounds that halve them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foci.bench.config import Suite
from foci.config.run import FOCUSED

BATCH, WARMUP, LEAST = 8, 0.1, 8
"""Rows per update, the share of the updates in which the rate rises, and the fewest updates of a trial."""
READINGS = 16
"""Most times that a trial reads a row."""
SPARE = 0.9
"""The share of the budget that is planned; the rest is for what an estimate misses."""
ROUNDS = ((8, 4, 2), (6, 3), (4, 2), (2,))
"""Trials in each round, by how much time there is; every round has half of the trials and twice the updates."""


@dataclass(frozen=True)
class Trial:
    """A plan with a learning rate; `said` says in words what it is."""

    methods: tuple[Any, ...]
    rate: float
    said: str


def _focused(strength: float) -> tuple[Any, ...]:
    """Returns the methods of `focused` with another strength of what is held."""
    return tuple(
        {name: {**settings, "strength": strength} for name, settings in method.items()}
        if isinstance(method, Mapping)
        else method
        for method in FOCUSED
    )


HELD_TEXTS = ({"replay": {"path": "encyclopedia", "ratio": 0.5, "anchor": "kl", "strength": 3.0}},)
"""Plain fine-tuning beside made-up texts that keep the predictions of the untouched model."""
TRIALS: dict[str, Trial] = {
    "plain": Trial((), 1e-3, "plain fine-tuning"),
    "focused-fast": Trial(FOCUSED, 2e-3, "focused, twice the rate"),
    "replay-fast": Trial(HELD_TEXTS, 2e-3, "plain fine-tuning and made-up texts that are held, twice the rate"),
    "focused": Trial(FOCUSED, 1e-3, "focused"),
    "focused-loose": Trial(_focused(1.0), 1e-3, "focused, held less (strength 1)"),
    "plain-slow": Trial((), 3e-4, "plain fine-tuning, a third of the rate"),
    "focused-firm": Trial(_focused(10.0), 1e-3, "focused, held more (strength 10)"),
    "weighed": Trial(("train_attention",), 1e-3, "train_attention alone"),
}
"""By name, those first that are tried where there is little time."""


@dataclass(frozen=True)
class Cost:
    """Seconds, as they were estimated or measured: of an update, of a trial beside its updates, of a round's start."""

    update: float
    trial: float
    start: float


@dataclass(frozen=True)
class Rounds:
    """How many trials each round has, and the updates of each trial of it."""

    trials: tuple[int, ...]
    updates: tuple[int, ...]


def planned(cost: Cost, seconds: int | float, rows: int) -> Rounds:
    """Returns the most rounds that fit into a budget of seconds. Raises ValueError where not even two trials do.

    >>> planned(Cost(update=1.0, trial=10.0, start=5.0), 600, 100)
    Rounds(trials=(8, 4, 2), updates=(16, 32, 64))
    """
    need = 0.0
    for trials in ROUNDS:
        fixed = sum(trials) * cost.trial + len(trials) * cost.start
        weights = sum(count * 2**number for number, count in enumerate(trials))
        first = int((SPARE * seconds - fixed) / (weights * cost.update))
        most = max(LEAST, READINGS * rows // BATCH // 2 ** (len(trials) - 1))
        if first >= LEAST:
            return Rounds(trials, tuple(min(first, most) * 2**number for number in range(len(trials))))
        need = (fixed + weights * cost.update * LEAST) / SPARE
    raise ValueError(
        f"a budget of {seconds / 60:.1f} minutes is too short: two trials of {LEAST} updates take about "
        f"{need / 60:.1f} minutes here; give --minutes {max(1, -(-need // 60)):.0f} or more"
    )


def suite_of(base: Mapping[str, Any], folder: Path, number: int, arms: list[str], updates: int) -> Suite:
    """Returns the suite of a round, numbered from 1: its trials as arms, one seed."""
    return Suite.model_validate(
        {
            **base,
            "name": f"advice, round {number}",
            "output": str(folder / f"round-{number}"),
            "train": {"steps": updates, "batch_size": BATCH, "warmup": WARMUP},
            "arms": {arm: list(TRIALS[arm].methods) for arm in arms},
            "overrides": {arm: {"learning_rate": TRIALS[arm].rate} for arm in arms},
        }
    )
