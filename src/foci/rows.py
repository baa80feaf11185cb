"""The input of a model: a row of tokens with all that is aligned with them, and padded rows as a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORED = -100
"""The label of a token that is not predicted (Transformers' convention)."""

REHEARSED = "rehearsed"
"""Column that is 1 on rehearsed rows, which are mixed in: weighers leave them at weight 1."""

ENTROPY = "entropy_top20"
"""Column of the learner's entropy where each token is predicted, in nats: that of its 20 likeliest tokens alone, their
probabilities scaled to sum to 1. Between 0 and ln 20 = 2.996; higher = less sure. It stands at the predicted token."""

UNWEIGHTED = "unweighted"
"""Column that is 1 on tokens that are context only: questions of conversations, and rehearsed rows that only match a
teacher. Their weight is 0."""

LOSS_WEIGHT = "loss_weight"
"""Column of the corpus' own weights. A row has it if one weight is neither 0 nor 1; other rows have weight 1."""


DELIMITER = "delimiter"
"""Column that is 1 on delimiters, for the patterns that look at them."""


@dataclass(frozen=True)
class Row:
    """One training row: the tokens of a piece of text and everything that is aligned with them.

    `row_id` is the hash of text and tokenizer; edits keep it. `offsets[t]` are the characters
    [start, end) of token t in `text`; (0, 0) for a token that stands for no text. `columns` hold one
    number per token, such as `answer` (1 on answer tokens). `source` is "file:line".
    """

    row_id: str
    input_ids: tuple[int, ...]
    text: str = ""
    offsets: tuple[tuple[int, int], ...] = ()
    columns: Mapping[str, tuple[int | float, ...]] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if not self.columns and len(self.offsets) in (0, len(self.input_ids)):
            return
        lengths = {name: len(column) for name, column in self.columns.items()}
        if self.offsets:
            lengths["offsets"] = len(self.offsets)
        if wrong := {name: n for name, n in lengths.items() if n != len(self.input_ids)}:
            raise ValueError(
                f"row {self.row_id}: every column needs one value per token ({len(self.input_ids)}), "
                f"got {wrong}; an edit must go through Row.take so that all columns follow"
            )

    def __len__(self) -> int:
        return len(self.input_ids)

    def take(self, positions: Sequence[int]) -> "Row":
        """Returns the row with only the tokens at `positions`, in that order; all columns follow.

        >>> Row("a", (5, 6, 7), columns={"answer": (0, 0, 1)}).take([0, 2]).columns["answer"]
        (0, 1)
        """
        return replace(
            self,
            input_ids=tuple(self.input_ids[p] for p in positions),
            offsets=tuple(self.offsets[p] for p in positions) if self.offsets else (),
            columns={name: tuple(c[p] for p in positions) for name, c in self.columns.items()},
        )


class Rows(Sequence[Row], ABC):
    """Rows that are made when they are asked for, such as rows on disk: they are never all in memory.

    A slice is a view. `texts` and `ids` are quicker than whole rows.
    """

    @abstractmethod
    def row(self, index: int) -> Row:
        """Returns one row; the index is in [0, len)."""

    @abstractmethod
    def __iter__(self) -> Iterator[Row]: ...

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """Yields the text of every row."""

    @abstractmethod
    def ids(self) -> Iterator[str]:
        """Yields the `row_id` of every row."""

    @property
    @abstractmethod
    def lengths(self) -> Int[np.ndarray, " row"]:
        """The number of tokens of every row."""

    @property
    @abstractmethod
    def names(self) -> frozenset[str]:
        """The columns that at least one row may have."""

    @property
    @abstractmethod
    def largest(self) -> int:
        """A token id that none of the rows exceeds."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Row | Rows":
        if isinstance(index, slice):
            return Chosen(self, np.arange(len(self))[index])
        at = index.__index__()
        at += len(self) if at < 0 else 0
        if not 0 <= at < len(self):
            raise IndexError(f"row {index} of {len(self)}; the last one is {len(self) - 1}")
        return self.row(at)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Sequence) and len(other) == len(self)
        return same and all(a == b for a, b in zip(self, other, strict=True))  # type: ignore[call-overload]

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return list, (list(self),)  # for a worker or a process that cannot read the same file


SPARSE = 16
"""Where fewer than one in so many rows is chosen, rows are read one by one; else all are read in one pass."""


class Chosen(Rows):
    """Some of the rows, by their places; ascending places are read in one go. A place may come several times."""

    def __init__(self, rows: Sequence[Row], at: Int[np.ndarray, " row"]) -> None:
        self._rows, self.at = rows, at
        self._ascends = bool((at[1:] > at[:-1]).all())

    def __len__(self) -> int:
        return len(self.at)

    def row(self, index: int) -> Row:
        return self._rows[int(self.at[index])]

    def __iter__(self) -> Iterator[Row]:
        few = SPARSE * len(self) < len(self._rows)
        return map(self.row, range(len(self))) if few or not self._ascends else self._some(self._rows)

    def texts(self) -> Iterator[str]:
        return self._some(texts_of(self._rows)) if self._ascends else (row.text for row in self)

    def ids(self) -> Iterator[str]:
        return self._some(ids_of(self._rows)) if self._ascends else (row.row_id for row in self)

    @property
    def lengths(self) -> Int[np.ndarray, " row"]:
        return lengths_of(self._rows)[self.at]

    @property
    def names(self) -> frozenset[str]:
        return names_of(self._rows)

    @property
    def largest(self) -> int:
        return largest_of(self._rows)

    def _some(self, every: Iterable[Any]) -> Iterator[Any]:
        wanted = np.zeros(len(self._rows), dtype=bool)
        wanted[self.at] = True
        return (one for one, is_wanted in zip(every, wanted.tolist(), strict=True) if is_wanted)


class Changed(Rows):
    """Rows after a change of their columns, which is made whenever a row is asked for; `added` names new columns."""

    def __init__(self, rows: Rows, change: Callable[[Row], Row], added: Iterable[str] = ()) -> None:
        self._rows, self.change, self.added = rows, change, frozenset(added)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        return self.change(self._rows.row(index))

    def __iter__(self) -> Iterator[Row]:
        return map(self.change, self._rows)

    def texts(self) -> Iterator[str]:
        return self._rows.texts()

    def ids(self) -> Iterator[str]:
        return self._rows.ids()

    @property
    def lengths(self) -> Int[np.ndarray, " row"]:
        return self._rows.lengths

    @property
    def names(self) -> frozenset[str]:
        return self._rows.names | self.added

    @property
    def largest(self) -> int:
        return self._rows.largest


class Joined(Rows):
    """Rows, and further rows after them."""

    def __init__(self, first: Sequence[Row], second: Sequence[Row]) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def row(self, index: int) -> Row:
        return self.first[index] if index < len(self.first) else self.second[index - len(self.first)]

    def __iter__(self) -> Iterator[Row]:
        return chain(self.first, self.second)

    def texts(self) -> Iterator[str]:
        return chain(texts_of(self.first), texts_of(self.second))

    def ids(self) -> Iterator[str]:
        return chain(ids_of(self.first), ids_of(self.second))

    @property
    def lengths(self) -> Int[np.ndarray, " row"]:
        return np.concatenate([lengths_of(self.first), lengths_of(self.second)])

    @property
    def names(self) -> frozenset[str]:
        return names_of(self.first) | names_of(self.second)

    @property
    def largest(self) -> int:
        return max(largest_of(self.first), largest_of(self.second))


def lengths_of(rows: Sequence[Row]) -> Int[np.ndarray, " row"]:
    """Returns the number of tokens of every row."""
    return rows.lengths if isinstance(rows, Rows) else np.fromiter(map(len, rows), np.int64, len(rows))


def texts_of(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the text of every row."""
    return rows.texts() if isinstance(rows, Rows) else (row.text for row in rows)


def ids_of(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the `row_id` of every row."""
    return rows.ids() if isinstance(rows, Rows) else (row.row_id for row in rows)


def names_of(rows: Sequence[Row]) -> frozenset[str]:
    """Returns the columns that at least one row may have."""
    return rows.names if isinstance(rows, Rows) else frozenset[str]().union(*(row.columns for row in rows))


def largest_of(rows: Sequence[Row]) -> int:
    """Returns a token id that none of the rows exceeds; -1 of no rows."""
    return rows.largest if isinstance(rows, Rows) else max((max(r.input_ids, default=-1) for r in rows), default=-1)


def chosen(rows: Sequence[Row], at: Int[np.ndarray, " row"]) -> Sequence[Row]:
    """Returns the rows at ascending places: a view of rows that are not in memory, else a list."""
    return Chosen(rows, at) if isinstance(rows, Rows) else [rows[n] for n in at.tolist()]


def joined(first: Sequence[Row], second: Sequence[Row]) -> Sequence[Row]:
    """Returns rows and further rows after them: a view where some are not in memory, else a list."""
    stored = isinstance(first, Rows) or isinstance(second, Rows)
    return Joined(first, second) if stored else [*first, *second]


def changed(rows: Sequence[Row], change: Callable[[Row], Row], added: Iterable[str] = ()) -> Sequence[Row]:
    """Returns rows after a change of their columns: a view of rows that are not in memory, else a list."""
    return Changed(rows, change, added) if isinstance(rows, Rows) else [change(row) for row in rows]


@dataclass(frozen=True)
class Batch:
    """Padded rows, ready for a model. Shapes: batch, seq. `labels[t]` is token t itself or `IGNORED`."""

    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    columns: Mapping[str, Float[Tensor, "batch seq"]] = field(default_factory=dict)
    row_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Row], pad_id: int, side: Literal["right", "left"] = "right") -> "Batch":
        """Pads rows to the longest; padding has mask 0, label `IGNORED` and 0 in every column."""
        if not rows:
            raise ValueError("a batch needs at least one row, got none")
        seq = max(len(row) for row in rows)
        names = sorted(set().union(*(row.columns for row in rows)))

        def padded(values: Iterable[int | float], fill: int | float) -> list[int | float]:
            known: list[int | float] = list(values)
            gap = [fill] * (seq - len(known))
            return known + gap if side == "right" else gap + known

        return cls(
            input_ids=torch.tensor([padded(row.input_ids, pad_id) for row in rows]),
            attention_mask=torch.tensor([padded([1] * len(row), 0) for row in rows]),
            labels=torch.tensor([padded(row.input_ids, IGNORED) for row in rows]),
            columns={
                name: torch.tensor(
                    [padded(row.columns.get(name, (cls.missing(name),) * len(row)), 0) for row in rows],
                    dtype=torch.float32,
                )
                for name in names
            },
            row_ids=tuple(row.row_id for row in rows),
        )

    @staticmethod
    def missing(column: str) -> float:
        """Returns the value that a column has on the tokens of rows without it."""
        return float(column == LOSS_WEIGHT)

    def to(self, device: torch.device | str) -> "Batch":
        """Returns the same batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            columns={name: column.to(device) for name, column in self.columns.items()},
        )

    def learned(self) -> Bool[Tensor, "batch seq"]:
        """Returns True where token t has an NLL and may have a weight: it is no question of a conversation."""
        return self.predicted() & (self.columns[UNWEIGHTED] == 0) if UNWEIGHTED in self.columns else self.predicted()

    def take(self, rows: Sequence[int] | Int[Tensor, " row"]) -> "Batch":
        """Returns the chosen rows, as wide as before."""
        at = [int(row) for row in rows]
        return replace(
            self,
            input_ids=self.input_ids[at],
            attention_mask=self.attention_mask[at],
            labels=self.labels[at],
            columns={name: column[at] for name, column in self.columns.items()},
            row_ids=tuple(self.row_ids[row] for row in at) if self.row_ids else (),
        )

    def predicted(self) -> Bool[Tensor, "batch seq"]:
        """Returns True where token t has an NLL: it is labelled and a real token stands before it."""
        real = self.attention_mask.bool()
        where = real & (self.labels != IGNORED)
        where[:, 1:] &= real[:, :-1]
        where[:, 0] = False
        return where


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's distributions at some positions: the `k` likeliest tokens of each, and one bucket for all others.

    Log-probabilities are in nats, at `temperature`. `rest` is the log of what all other tokens have together, -inf
    where there is none. Row n is about the n-th position that was asked for, and predicts the token that stands there.
    """

    ids: Int[Tensor, "token k"]
    log_probs: Float[Tensor, "token k"]
    rest: Float[Tensor, " token"]
    temperature: float = 1.0

    def to(self, device: torch.device | str) -> "SoftTargets":
        """Returns the same distributions on another device."""
        return replace(self, ids=self.ids.to(device), log_probs=self.log_probs.to(device), rest=self.rest.to(device))
