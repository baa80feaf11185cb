"""The input of a model: a row of tokens with all that is aligned with them, and padded rows as a batch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORED = -100
"""The label of a token that is not predicted (Transformers' convention)."""

REHEARSED = "rehearsed"
"""Column that is 1 on rows that are mixed in: they are read plainly, weighers are about new text."""

ENTROPY = "entropy_top20"
"""Column of the learner's entropy where each token is predicted, in nats: that of its 20 likeliest tokens alone, their
probabilities scaled to sum to 1. Between 0 and ln 20 = 2.996; higher = less sure. It stands at the predicted token."""

UNWEIGHTED = "unweighted"
"""Column that is 1 on tokens that are read and have no weight, such as questions of conversations, or mixed-in rows
that only a teacher is asked about: their own token teaches nothing."""

LOSS_WEIGHT = "loss_weight"
"""Column of the weights that the corpus itself gives, where one is neither 0 nor 1. Rows without it have weight 1."""


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
