"""Counts the updates of each arm, so that all arms have in common what the suite's `match` says."""

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from foci.config.train import TrainConfig
from foci.focus import EditsTokens, MixesRows, Plan, Row
from foci.learn.arguments import updates_of_epoch
from foci.rows import lengths_of
from foci.training.dataset import MixedDataset, RowDataset


class Epoch(NamedTuple):
    """One pass over the new rows and the epoch's old rows: updates (a fraction if the last is shared) and tokens."""

    updates: int | float
    tokens: int


def tokens_of(plan: Plan, rows: Sequence[Row], train: TrainConfig, seed: int, updates: int) -> float:
    """Returns the tokens read in so many updates, without padding. All updates of an epoch count alike."""
    tokens, left = 0.0, float(updates)
    for epoch in _until(plan, rows, train, seed, updates=updates):
        part = min(1.0, left / epoch.updates)
        tokens, left = tokens + part * epoch.tokens, left - part * epoch.updates
    return tokens


def updates_of(plan: Plan, rows: Sequence[Row], train: TrainConfig, seed: int, tokens: int | float) -> int:
    """Returns the whole number of updates, at least one, that reads the nearest number of tokens."""
    updates, left = 0.0, tokens
    for epoch in _until(plan, rows, train, seed, tokens=tokens):
        part = min(1.0, left / epoch.tokens)
        updates, left = updates + part * epoch.updates, left - part * epoch.tokens
    return max(1, round(updates))


def _until(
    plan: Plan, rows: Sequence[Row], train: TrainConfig, seed: int, *, updates: int | float = 0, tokens: int | float = 0
) -> list[Epoch]:
    """Returns the first epochs that together hold at least so many updates and tokens."""
    for total in (2**n for n in count(2)):
        found = epochs(plan, rows, train, seed, total)
        if sum(e.updates for e in found) >= updates and sum(e.tokens for e in found) >= tokens:
            return found
    raise AssertionError


def epochs(plan: Plan, rows: Sequence[Row], train: TrainConfig, seed: int, total: int) -> list[Epoch]:
    """Returns an arm's first epochs as the trainer will read them. `plan` is the plan after the offline stages."""
    new = RowDataset(rows, plan.of(EditsTokens), seed=seed, copies=train.copies)
    per_update = train.batch_size * train.accumulation
    old = MixedDataset(new, plan, total).old if plan.of(MixesRows) else [[]] * total
    found = []
    for number in range(total):
        new.set_epoch(number)
        lengths = [len(new[i]) for i in range(len(new))] if plan.of(EditsTokens) else new.lengths()
        read = len(new) + len(old[number])
        updates = read / per_update if plan.of(MixesRows) else updates_of_epoch(read, train)
        found.append(Epoch(updates, int(sum(lengths)) + int(lengths_of(old[number]).sum())))
    return found
