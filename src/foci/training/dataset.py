"""Rows on their way to the trainer: edits, copies, rehearsed rows, batches of like length.

Everything random here is a function of (seed, epoch, copy, row_id), so that it is the same whatever the number
of workers, after a resume, and on two processes.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foci.focus import IGNORED, LOSS_WEIGHT, REHEARSED, UNWEIGHTED, Batch, EditsTokens, MixesRows, Plan, Row
from foci.rows import Rows, changed, lengths_of, names_of
from foci.rows import joined as behind
from foci.seeds import generator
from foci.training.plan import with_columns

FILLER = -1
"""The index of a row that counts for nothing: it keeps a process busy that has no row while others have one."""
FILLER_ID = "(no row)"
_FILLER_ROW = Row(FILLER_ID, (0, 0))


def is_filler(batch: Batch, number: int) -> bool:
    """Returns whether a row of a batch is `FILLER`."""
    return bool(batch.row_ids) and batch.row_ids[number] == _FILLER_ROW.row_id


def as_rows(dataset: Sequence[Any]) -> Sequence[Row]:
    """Makes rows of rows, or of mappings with `input_ids` (other lists of the same length become columns).

    A token whose label is -100 has no weight. Raises ValueError for another label that is not the token itself.
    Rows on disk stay there.
    """
    if isinstance(dataset, Rows):
        return dataset
    return [item if isinstance(item, Row) else _row_of(item, n) for n, item in enumerate(dataset)]


def _row_of(item: Any, number: int) -> Row:
    if not isinstance(item, Mapping) or "input_ids" not in item:
        raise TypeError(
            f"row {number} of the training data must be a foci Row or a mapping with 'input_ids', got {item!r:.80}"
        )
    ids = tuple(int(i) for i in item["input_ids"])
    if 0 in list(item.get("attention_mask", ())):
        raise ValueError(f"row {number} of the training data holds padding (attention_mask has 0); give rows unpadded")
    skip = ("input_ids", "labels", "attention_mask")
    labels = [int(i) for i in item.get("labels", ids)]
    if len(labels) != len(ids) or any(label not in (IGNORED, token) for label, token in zip(labels, ids, strict=True)):
        raise ValueError(f"row {number} has labels that are not its tokens; give each token itself, or -100")
    columns = {
        name: tuple(float(v) for v in values)
        for name, values in item.items()
        if name not in skip and not isinstance(values, str) and hasattr(values, "__len__") and len(values) == len(ids)
    }
    if IGNORED in labels[1:]:
        columns[UNWEIGHTED] = tuple(float(label == IGNORED) for label in labels)
    return Row(str(item.get("row_id", f"row-{number}")), ids, columns=columns)


class RowDataset(Dataset):
    """Rows times copies, edited afresh in every epoch. Call `set_epoch` before an epoch is read."""

    def __init__(
        self, rows: Sequence[Row], edits: Sequence[EditsTokens] = (), *, seed: int = 0, copies: int = 1
    ) -> None:
        if not rows:
            raise ValueError("there are no rows to train on; expected at least one")
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        self.rows: Sequence[Row] = rows if isinstance(rows, Rows) else list(rows)
        self.edits, self.seed, self.copies, self.epoch = list(edits), seed, copies, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows) * self.copies

    def __getitem__(self, index: int) -> Row:
        if index == FILLER:
            return _FILLER_ROW
        copy, at = divmod(index, len(self.rows))
        return edited(self.rows[at], self.edits, (self.seed, self.epoch, copy))

    def lengths(self) -> Int[np.ndarray, " item"]:
        """Returns the number of tokens of every item before edits."""
        return np.tile(lengths_of(self.rows), self.copies)


class EpochCallback(TrainerCallback):
    """Tells a `RowDataset` its epoch, before the epoch's workers start."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.sampler: Any = None

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if isinstance(self.dataset, RowDataset):
            self.dataset.set_epoch(int(state.epoch or 0))
        if self.sampler is not None:
            self.sampler.set_epoch(int(state.epoch or 0))


class MixedDataset(Dataset):
    """All epochs in one pass, each with the old rows that are rehearsed in it.

    How many old rows an epoch holds is the methods' choice, so epochs differ in length; a trainer that counts
    epochs of equal length could not resume inside one. Hence one pass over `parts`, one per epoch.
    """

    def __init__(self, new: RowDataset, plan: Plan, epochs: int) -> None:
        self.new = new
        self.old = [mixed(plan, new.seed, epoch) for epoch in range(epochs)]
        if not any(self.old):
            raise ValueError(
                f"{[repr(m) for m in plan.of(MixesRows)]} mixed in no old rows in any of {epochs} epochs; "
                "leave the method out or give it rows to rehearse"
            )
        self.starts = [0, *accumulate(len(new) + len(old) for old in self.old)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Row:
        if index == FILLER:
            return _FILLER_ROW
        epoch = bisect_right(self.starts, index) - 1
        at = index - self.starts[epoch]
        if at >= len(self.new):
            return self.old[epoch][at - len(self.new)]
        copy, at = divmod(at, len(self.new.rows))
        return edited(self.new.rows[at], self.new.edits, (self.new.seed, epoch, copy))

    def lengths(self) -> Int[np.ndarray, " item"]:
        """Returns the number of tokens of every item before edits."""
        new = self.new.lengths()
        return np.concatenate([part for old in self.old for part in (new, lengths_of(old))])

    def read_in(self, epochs: int | float) -> float:
        """Returns the rows that so many epochs hold; a part of an epoch holds that part of its rows."""
        whole = int(epochs)
        last = self.starts[-1] - self.starts[whole] if whole < len(self.starts) - 1 else 0
        return float(self.starts[whole] + (epochs - whole) * last)

    def parts(self) -> list[range]:
        """Returns the indices of each epoch."""
        return [range(a, b) for a, b in zip(self.starts, self.starts[1:], strict=False)]


def mixed(plan: Plan, seed: int, epoch: int) -> Sequence[Row]:
    """Returns the old rows of an epoch, those of each method that mixes after those of the one before."""
    drawn = (mixer.mix(epoch, generator(seed, "mix", epoch, n)) for n, mixer in enumerate(plan.of(MixesRows)))
    return reduce(behind, (changed(with_columns(plan, rows), _as_rehearsed, (REHEARSED,)) for rows in drawn))


def _as_rehearsed(row: Row) -> Row:
    return replace(row, columns={**row.columns, REHEARSED: (1.0,) * len(row)})


@runtime_checkable
class ChoosesDraws(Protocol):
    """A method that edits tokens and says itself whose random numbers a reading uses: fixed copies repeat a few."""

    def draw(self, epoch: int, copy: int) -> tuple[int, int] | None:
        """Returns the (epoch, copy) whose random numbers this reading uses; None: the row is read unedited."""
        ...


def edited(row: Row, edits: Sequence[EditsTokens], key: tuple[int, int, int]) -> Row:
    """Returns the row after all edits; `key` is (seed, epoch, copy)."""
    for number, edit in enumerate(edits):
        draw = edit.draw(key[1], key[2]) if isinstance(edit, ChoosesDraws) else key[1:]
        after = row if draw is None else edit.edit(row, generator(key[0], *draw, row.row_id, number))
        if after.row_id != row.row_id:
            raise ValueError(f"{edit!r} changed row_id {row.row_id} to {after.row_id}; an edited row keeps its id")
        if len(after) < 2:
            raise ValueError(
                f"{edit!r} left {len(after)} of {len(row)} tokens of row {row.row_id}; a row needs at least 2"
            )
        row = after
    return row


class OrderedSampler(Sampler[int]):
    """Shuffles within each part; optionally puts rows of like length together. A function of (seed, epoch).

    Lengths are sorted inside windows of 50 batches, then whole batches are shuffled, so that rows of a batch are
    alike and the order of batches is still random (transformers does the same from the global random state, which
    makes a resumed run read another order).
    """

    def __init__(
        self, parts: Sequence[range], lengths: Sequence[int] | np.ndarray, batch: int, *, seed: int, group: bool
    ) -> None:
        self.parts, self.lengths, self.batch, self.seed, self.group = parts, np.asarray(lengths), batch, seed, group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[int]:
        for number, part in enumerate(self.parts):
            rng = generator(self.seed, "order", self.epoch, number)
            order = part.start + rng.permutation(len(part))
            yield from self._grouped(order, rng) if self.group else map(int, order)

    def _grouped(self, order: Int[np.ndarray, " item"], rng: np.random.Generator) -> Iterator[int]:
        for start in range(0, len(order), window := 50 * self.batch):
            some = order[start : start + window]
            order[start : start + window] = some[np.argsort(-self.lengths[some], kind="stable")]
        whole = len(order) // self.batch
        for i in rng.permutation(whole):
            yield from order[i * self.batch : (i + 1) * self.batch].tolist()
        yield from order[whole * self.batch :].tolist()


def has_weights(dataset: RowDataset | MixedDataset) -> bool:
    """Says whether the corpus itself gives some token a weight that is neither 0 nor 1."""
    new, old = (dataset.new.rows, dataset.old) if isinstance(dataset, MixedDataset) else (dataset.rows, [])
    return any(LOSS_WEIGHT in names_of(rows) for rows in (new, *old))


@dataclass(frozen=True)
class Collator:
    """Makes of rows the dictionary that a model takes, with the columns and the ids beside it.

    `labelled` takes the labels from tokens that are read without a weight, for a loss that knows labels alone.
    """

    pad_id: int
    side: Literal["right", "left"] = "right"
    labelled: bool = False

    def __call__(self, rows: Sequence[Row] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = Batch.of(as_rows(rows), self.pad_id, self.side)
        labels = batch.labels
        if fillers := [n for n in range(len(rows)) if is_filler(batch, n)]:
            labels[fillers] = IGNORED
        if self.labelled and UNWEIGHTED in batch.columns:
            labels = labels.masked_fill(batch.columns[UNWEIGHTED] != 0, IGNORED)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "labels": labels,
            "columns": dict(batch.columns),
            "row_ids": list(batch.row_ids),
        }


def are_rows(dataset: Any, collator: Any) -> bool:
    """Says whether a data set holds rows of ours, or mappings of ids without labels and without a collator.

    Raises ValueError for an empty list.
    """
    if isinstance(dataset, list | tuple) and not dataset:
        raise ValueError("there are no rows to train on: train_dataset is empty; give at least one row")
    if not isinstance(dataset, Sequence) or not dataset:
        return False
    first = dataset[0]
    plain = isinstance(first, Mapping) and "input_ids" in first and "labels" not in first
    return isinstance(first, Row) or (plain and collator is None)


def pad_id(model: Any, tokenizer: Any) -> int:
    """Returns a token to pad with; which one does not matter, no real token sees it."""
    for known in (tokenizer, getattr(model, "config", None)):
        for name in ("pad_token_id", "eos_token_id"):
            value = getattr(known, name, None)
            if isinstance(value, int):
                return value
    return 0


OURS = frozenset({"input_ids", "attention_mask", "labels", "columns", "holds", "row_ids", "weights"})
"""Keys that a micro-batch may hold for our own loss."""


def are_ours(samples: Sequence[Mapping[str, Any]]) -> bool:
    """Says whether micro-batches hold nothing but what `batch_of` reads."""
    return all({"input_ids", "labels"} <= set(inputs) <= OURS for inputs in samples)


def check_inputs(samples: Sequence[Mapping[str, Any]]) -> None:
    """Refuses micro-batches that our own loss would misread, such as packed rows with positions of their own."""
    for inputs in samples:
        foreign, missing = sorted(set(inputs) - OURS), sorted({"input_ids", "labels"} - set(inputs))
        if foreign or missing:
            raise ValueError(
                f"a plan that weighs tokens, imitates a teacher or guides heads reads batches of {sorted(OURS)}; this "
                f"one also has {foreign} and lacks {missing}. Turn packing and padding_free off, and give labels"
            )


def batch_of(inputs: Mapping[str, Any]) -> Batch:
    """Returns the `Batch` in a trainer's inputs, whoever collated them."""
    ids = inputs["input_ids"]
    return Batch(
        input_ids=ids,
        attention_mask=inputs.get("attention_mask", torch.ones_like(ids)),
        labels=inputs["labels"],
        columns=inputs.get("columns", {}),
        row_ids=tuple(inputs.get("row_ids", ())),
    )


@dataclass(frozen=True)
class Update:
    """The contents of one update: its rows, its tokens (padding left out), its positions, and what trains in it.

    `read` are the tokens at these positions: rows may be cut behind the last token that trains.

    `weighted` tokens are learned, `held` ones are held to a teacher, `guided` queries are pulled to a pattern.
    `divergence` is what the held tokens add to the loss: strength * T^2 KL(teacher || learner), in nats.
    """

    rows: tuple[str, ...] = ()
    tokens: int = 0
    read: int = 0
    positions: int = 0
    weighted: int = 0
    held: int = 0
    guided: int = 0
    divergence: float = 0.0

    @classmethod
    def of(cls, whole: Batch, weights: Tensor, positions: int) -> "Update":
        """Counts an update of all processes; `positions` are those of its micro-batches as they were padded."""
        tokens = int(whole.attention_mask.sum())
        return cls(whole.row_ids, tokens, tokens, positions, int((weights > 0).sum()))


def joined(batches: Sequence[Batch]) -> tuple[Batch, Callable[[Tensor], list[Tensor]]]:
    """Joins the batches of one update; returns one batch, and a function that splits a (batch, seq) tensor back."""
    seq = max(batch.input_ids.shape[1] for batch in batches)

    def widened(tensor: Tensor, fill: int | float) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, seq - tensor.shape[1]), value=fill)

    names = sorted(set().union(*(batch.columns for batch in batches)))

    def column(batch: Batch, name: str) -> Tensor:
        known = batch.columns.get(name)
        return (
            torch.full(batch.labels.shape, Batch.missing(name), device=batch.labels.device) if known is None else known
        )

    whole = Batch(
        input_ids=torch.cat([widened(b.input_ids, 0) for b in batches]),
        attention_mask=torch.cat([widened(b.attention_mask, 0) for b in batches]),
        labels=torch.cat([widened(b.labels, -100) for b in batches]),
        columns={name: torch.cat([widened(column(b, name), 0) for b in batches]) for name in names},
        row_ids=tuple(row_id for batch in batches for row_id in batch.row_ids),
    )

    def split(tensor: Tensor) -> list[Tensor]:
        parts = tensor.split([b.input_ids.shape[0] for b in batches])
        return [part[:, : b.input_ids.shape[1]] for part, b in zip(parts, batches, strict=True)]

    return whole, split
