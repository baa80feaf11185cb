"""One small method per role, and rows for them. Small, but real: each changes what it says it changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor

import tiny
from foci.focus import (
    Batch,
    EditsTokens,
    GuidesHeads,
    HoldsWeights,
    Imitates,
    LiveTeacher,
    MixesRows,
    Pattern,
    Row,
    ScalesLayers,
    WeighsTokens,
)


def rows(count: int = 12, *, seed: int = 0, shortest: int = 4, longest: int = 14) -> list[Row]:
    """Random rows of unequal length with a column `w` in [0, 1] whose first entry is 0."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for n in range(count):
        length = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
        ids = torch.randint(2, 97, (length,), generator=generator).tolist()
        weights = torch.rand(length, generator=generator)
        weights[torch.rand(length, generator=generator) < 0.4] = 0.0
        weights[0], weights[1] = 0.0, 0.5
        made.append(Row(f"{seed}-{n}", tuple(ids), columns={"w": tuple(weights.tolist())}))
    return made


def batch(count: int = 4, **kwargs: int) -> Batch:
    return Batch.of(rows(count, **kwargs), tiny.PAD)


@dataclass(frozen=True)
class Dropped(EditsTokens):
    """Deletes each token but the first two with probability `rate`."""

    rate: float = 0.3

    def edit(self, row: Row, rng: Generator) -> Row:
        draws = rng.random(len(row))
        return row.take([n for n in range(len(row)) if n < 2 or draws[n] >= self.rate])


@dataclass(frozen=True)
class Column(WeighsTokens):
    """Weights from a column."""

    name: str = "w"

    def needs(self) -> frozenset[str]:
        return frozenset({self.name})

    def weigh(self, batch: Batch) -> Tensor:
        return batch.columns[self.name]


@dataclass(frozen=True)
class ByPosition(WeighsTokens):
    """Weight 1 + t at position t."""

    def weigh(self, batch: Batch) -> Tensor:
        return (1.0 + torch.arange(batch.input_ids.shape[1])).expand(batch.input_ids.shape)


@dataclass(frozen=True)
class Hard(WeighsTokens):
    """Weighs a token by the learner's own NLL."""

    def needs(self) -> frozenset[str]:
        return frozenset({"nll"})

    def weigh(self, batch: Batch) -> Tensor:
        return batch.columns["nll"]


@dataclass(frozen=True)
class LookAt(GuidesHeads):
    """Guides head 0 of one layer to one pattern."""

    layer: int = 1
    pattern: Pattern = "previous"
    power: float = 1.0

    def targets(self, layer: int) -> Mapping[int, Pattern]:
        return {0: self.pattern} if layer == self.layer else {}

    def strength(self, step: int, steps: int) -> float:
        return self.power


@dataclass(frozen=True)
class LookTwoWays(GuidesHeads):
    """Guides two heads of every layer to two patterns."""

    def targets(self, layer: int) -> Mapping[int, Pattern]:
        return {0: "previous", 2: "first"}

    def strength(self, step: int, steps: int) -> float:
        return 0.5 if step < 2 else 0.2


@dataclass(frozen=True)
class Scaled(ScalesLayers):
    """Scales the blocks that are named."""

    by: Mapping[str, float]

    def blocks(self) -> frozenset[str]:
        return frozenset(self.by)

    def scale(self, block: str) -> float:
        return self.by.get(block, 1.0)


@dataclass(frozen=True)
class Old(MixesRows):
    """Adds `count[epoch]` old rows."""

    pool: Sequence[Row]
    count: Sequence[int] = (2, 1)

    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        chosen = rng.permutation(len(self.pool))[: self.count[min(epoch, len(self.count) - 1)]]
        return [self.pool[i] for i in chosen]


@dataclass(frozen=True)
class Pulled(HoldsWeights):
    """A constant pull, and a pace."""

    strength: float = 1.0
    block: str = "*"
    tempo: float = 1.0

    def pull(self, step: int) -> Mapping[str, float]:
        return {self.block: self.strength}

    def pace(self, step: int) -> float:
        return self.tempo


@dataclass(frozen=True)
class Imitating(Imitates):
    """Holds the tokens of little weight to the untouched model, more so at later positions."""

    power: float = 2.0
    below: float = 0.5
    k: int = 9
    temperature: float = 1.0

    def teacher(self) -> LiveTeacher:
        return LiveTeacher(self.k, self.temperature)

    def hold(self, batch: Batch, weights: Tensor) -> Tensor:
        return (weights < self.below) * (1.0 + torch.arange(weights.shape[1]))

    def strength(self, step: int, steps: int) -> float:
        return self.power
