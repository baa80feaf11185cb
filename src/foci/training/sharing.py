"""Shares out the rows of every update among processes, so that several make the update of one.

One process reads an update's rows in micro-batches, one after another. Several processes each read a run of
neighbouring rows of the same update; where the rows do not come out even, a process reads `FILLER`, which counts for
nothing. Weights, and all that methods decide about an update, are computed in every process from the rows of all.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import RandomSampler, Sampler
from transformers import TrainingArguments

from foci.focus import Batch
from foci.system import processes
from foci.training.dataset import FILLER, MixedDataset, OrderedSampler, RowDataset, is_filler, joined


def with_rows(args: TrainingArguments, rows: int) -> TrainingArguments:
    """Returns the arguments with the number of rows of an update of all processes, which they need not divide.

    It is at most the number of places that the arguments give to all processes together.
    """
    found = copy.copy(args)
    found.foci_rows = rows  # type: ignore[attr-defined]
    return found


def rows_of_update(args: TrainingArguments) -> int:
    """Returns the rows of an update of all processes: those of `with_rows`, or as many as there are places."""
    places: int = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return getattr(args, "foci_rows", places)


def for_our_loss(args: TrainingArguments, *, replaced: bool) -> None:
    """Sets what DDP must not do where foci's own loss has `replaced` the Trainer's, unless the arguments say otherwise.

    The head is called after the forward pass that DDP sees, so it would be taken for unused. Where rows are read apart,
    processes make different numbers of passes, so buffers cannot be sent before each.
    """
    if replaced and args.world_size > 1:
        args.ddp_find_unused_parameters = bool(args.ddp_find_unused_parameters)
        args.ddp_broadcast_buffers = bool(args.ddp_broadcast_buffers)


def shares(rows: int, batch: int, count: int) -> tuple[int, int]:
    """Returns the rows of a micro-batch (at most `batch`) and the micro-batches of an update, for each process.

    `rows` are those of an update of all `count` processes.

    >>> shares(16, 8, 1), shares(16, 8, 2), shares(16, 8, 3)
    ((8, 2), (8, 1), (6, 1))
    """
    own = math.ceil(rows / count)
    micro_batches = math.ceil(own / batch)
    return math.ceil(own / micro_batches), micro_batches


class SharedOut(Sampler[int]):
    """The order of one process, dealt out for `count` processes that read micro-batches by turns, as accelerate does.

    `rows` are those of an update; each process has `batch` places in each of `micro_batches` micro-batches for it. The
    places that are left over hold `FILLER`.
    """

    def __init__(self, order: Sampler[int], rows: int, batch: int, micro_batches: int, count: int) -> None:
        self.order, self.rows = order, rows
        self.batch, self.micro_batches, self.count = batch, micro_batches, count
        if rows > batch * micro_batches * count:
            raise ValueError(
                f"an update of {rows} rows does not fit into {count} processes with {micro_batches} micro-batches of "
                f"{batch} rows each; raise per_device_train_batch_size or gradient_accumulation_steps"
            )

    def set_epoch(self, epoch: int) -> None:
        """Tells the order which epoch it is for."""
        if isinstance(self.order, OrderedSampler | SeedableRandomSampler):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.rows) * self.batch * self.micro_batches * self.count  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        order = iter(self.order)
        while update := list(islice(order, self.rows)):
            edges = [len(update) * n // self.count for n in range(self.count + 1)]
            parts = [update[a:b] for a, b in pairwise(edges)]
            for begin in range(0, self.batch * self.micro_batches, self.batch):
                for part in parts:
                    some = part[begin : begin + self.batch]
                    yield from some
                    yield from [FILLER] * (self.batch - len(some))


def ordered(dataset: RowDataset | MixedDataset, args: TrainingArguments, rows: int) -> OrderedSampler | None:
    """Returns the order of rows where it must survive a resume; None where the trainer's own does. `rows`: per update.

    Rows of like length stand together within an update, however it is cut into micro-batches and processes.
    """
    group = args.train_sampling_strategy == "group_by_length"
    if isinstance(dataset, MixedDataset):
        parts = dataset.parts()
    elif group:
        parts = [range(len(dataset))]
    else:
        return None
    return OrderedSampler(parts, dataset.lengths(), rows, seed=args.seed, group=group)


def shared(order: Sampler[int], args: TrainingArguments, rows: int) -> SharedOut:
    """Returns an order dealt out for the processes of `args`; a random one as accelerate draws it in one process."""
    if type(order) is RandomSampler:
        order = SeedableRandomSampler(order.data_source, data_seed=args.data_seed)
    return SharedOut(order, rows, args.train_batch_size, args.gradient_accumulation_steps, args.world_size)


def whole_update(batches: Sequence[Batch]) -> tuple[Batch, Callable[[Tensor], list[Tensor]]]:
    """Joins the micro-batches of an update, those of all processes, without fillers; every process must call it.

    Returns one batch, and a function that gives back this process' parts of a (batch, seq) tensor, 0 on fillers.
    """
    if processes.size() == 1:
        return joined(batches)
    every = processes.gathered([batch.to("cpu") for batch in batches])
    whole, split = joined([batch for own in every for batch in own])
    count, device = whole.input_ids.shape[0], batches[0].input_ids.device
    kept = [n for n in range(count) if not is_filler(whole, n)]
    first = sum(len(own) for own in every[: processes.number()])

    def own_parts(tensor: Tensor) -> list[Tensor]:
        wide = torch.zeros((count, *tensor.shape[1:]), dtype=tensor.dtype)
        wide[kept] = tensor
        return [part.to(device) for part in split(wide)[first : first + len(batches)]]

    return whole.take(kept), own_parts


def tokens_of(parts: Iterable[Mapping[str, Any]]) -> int:
    """Returns the tokens that the model reads, padding left out, in all processes; every process must call it."""
    masks = (part.get("attention_mask", torch.ones_like(part["input_ids"])) for part in parts)
    return sum(processes.gathered(sum(int(mask.sum()) for mask in masks)))


def positions_of(parts: Iterable[Mapping[str, Any]]) -> int:
    """Returns the positions that the model reads, padding counted, in all processes; every process must call it."""
    return sum(processes.gathered(sum(part.get("positions", part["input_ids"].numel()) for part in parts)))


def without_fillers(batch: Batch) -> Batch:
    """Returns the batch with fillers as padding alone, so that nothing is counted in them."""
    fillers = [n for n in range(batch.input_ids.shape[0]) if is_filler(batch, n)]
    if not fillers:
        return batch
    mask = batch.attention_mask.clone()
    mask[fillers] = 0
    return replace(batch, attention_mask=mask)
