"""A column that a model computes for many rows, kept in shards: a kill loses one shard, and no row is lost or doubled.

    shards = Shards(folder, {"model": fingerprint}, "nll", rows)
    for done in shards.fill(compute, number=0, count=2):     # every second shard; those that are there are left alone
        print(done.tokens / done.seconds)
    column = shards.column_of(compute)                       # of every row, in their order

A shard is one parquet file of rows (`row_id`, tokens, the column) and beside it, written last, the JSON that says what
it was made for; it is made again where that is missing, and refused where it says something else.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from foci.corpus import read_rows, write_rows
from foci.corpus.store import rows_key
from foci.focus import Row
from foci.rows import lengths_of
from foci.system.cache import kept

TOKENS = 2**15
"""Tokens of a shard, at most (or one row): what a kill may cost."""

Compute = Callable[[Sequence[Row]], Sequence[Sequence[int | float]]]
"""One value per token of each row, in order."""


class Done(NamedTuple):
    """Cost of a shard: tokens read and seconds, 0 and 0 where it was there before."""

    tokens: int
    seconds: float


@dataclass(frozen=True)
class Shards:
    """`column` of `rows`, in `folder`. `key` says what the values depend on beside the rows; ids are unique."""

    folder: Path
    key: Mapping[str, str | int | float]
    column: str
    rows: Sequence[Row]
    tokens: int = field(default_factory=lambda: TOKENS)

    @cached_property
    def parts(self) -> list[Int[np.ndarray, " row"]]:
        """The rows of every shard by their numbers, longest first, so that rows of like length stand together."""
        lengths = lengths_of(self.rows)
        order = np.argsort(-lengths, kind="stable")
        begins, room = list[int](), 0
        for number, length in enumerate(lengths[order]):
            if not begins or length > room:
                begins.append(number)
                room = self.tokens
            room -= int(length)
        return [order[begin:end] for begin, end in pairwise([*begins, len(order)])]

    def path(self, number: int) -> Path:
        """The file of one shard."""
        return self.folder / f"part-{number:05d}.parquet"

    def complete(self) -> bool:
        """Whether every shard is there, whatever it was made for."""
        paths = (self.path(number) for number in range(len(self.parts)))
        return all(path.is_file() and path.with_suffix(".json").is_file() for path in paths)

    def fill(self, compute: Compute, number: int = 0, count: int = 1) -> Iterator[Done]:
        """Computes the shards `number`, `number + count`, ... that are not there, and tells after each what it took.

        Raises ValueError where a shard is there that was made for something else.
        """
        for part in range(number, len(self.parts), count):
            begin, fresh = time.perf_counter(), not self.path(part).with_suffix(".json").is_file()
            read = sum(len(row) for row in self._kept(part, compute))
            yield Done(read, time.perf_counter() - begin) if fresh else Done(0, 0.0)

    def column_of(self, compute: Compute) -> list[tuple[int | float, ...]]:
        """The column of every row, in their order; what is missing is computed.

        Raises ValueError where a shard was made for something else, or holds other rows than it should.
        """
        found: dict[str, tuple[int | float, ...]] = {}
        for number, part in enumerate(self.parts):
            rows = self._kept(number, compute)
            have, want = [row.row_id for row in rows], [self.rows[at].row_id for at in part]
            if have != want:
                raise ValueError(
                    f"{self.path(number)} should hold {len(want)} rows from {want[0]} on, got {len(have)} "
                    f"({', '.join(have[:2]) or 'none'}...); delete {self.folder} so that it is made again"
                )
            found |= {row.row_id: row.columns[self.column] for row in rows}
        return [found[row.row_id] for row in self.rows]

    def _kept(self, number: int, compute: Compute) -> Sequence[Row]:
        some = [self.rows[at] for at in self.parts[number]]
        return kept(
            self.path(number),
            self.key_of(number),
            lambda: [
                Row(row.row_id, row.input_ids, columns={self.column: tuple(values)})
                for row, values in zip(some, compute(some), strict=True)
            ],
            write_rows,
            read_rows,
        )

    def key_of(self, number: int) -> dict[str, str | int | float]:
        """All that a shard depends on."""
        place = {"tokens": self.tokens, "shard": number, "shards": len(self.parts)}
        return {**self.key, "rows": self._rows_key, **place}

    @cached_property
    def _rows_key(self) -> str:
        return rows_key(self.rows)
