"""A teacher's distributions, asked once before training and kept in shards: a `StoredTeacher`.

A shard is a parquet file with one record per row: for every token but the first, the k likeliest tokens where it
stands, their log-probabilities, and the log of what all other tokens have together. With k = 20 a token takes 124 bytes
(164 where the vocabulary is larger than 65,536) before compression.
"""

import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel

from foci.corpus import stored
from foci.corpus.seen import key_of
from foci.corpus.shards import Shards
from foci.corpus.store import values_in
from foci.corpus.stored import BatchFile
from foci.focus import Batch, LiveTeacher, Row, SoftTargets
from foci.models.forward import answering, buckets, device_of, padded
from foci.models.soft_targets import live_targets
from foci.system.cache import kept
from foci.system.files import replacing

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A row's ids (token, k), log-probabilities (token, k), rest (token,); of the tokens from the second on."""

READ = 2**11
"""Tokens of a record batch on disk, at most (or one row): what is read for one row, about 250 KB."""

Line = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""A row's id and its `Arrays`."""

Lines = list[Line]

Ask = Callable[[Sequence[Row]], Lines]


@dataclass(frozen=True)
class Stored:
    """Distributions in `folder`, of the rows that were asked about."""

    folder: Path
    shards: int
    temperature: float = 1.0
    name: str = field(default="lwf", repr=False)

    def lines(self) -> Mapping[str, Arrays]:
        """Returns ids, log-probabilities and rest by row, of the tokens from the second on."""
        return _loaded(self.folder, self.shards)

    def targets(self, batch: Batch, where: Bool[Tensor, "batch seq"]) -> SoftTargets:
        """Returns the distributions at the positions in `where`, row by row.

        Raises ValueError for a row that the teacher was not asked about, or that has another length now.
        """
        known = _loaded(self.folder, self.shards)
        none = next(iter(known.values()))
        found = [tuple(array[:0] for array in none)]  # where may be empty
        for row_id, mask, asked in zip(batch.row_ids, batch.attention_mask.bool().cpu(), where.cpu(), strict=True):
            places = (mask.cumsum(0) - 2)[asked].numpy()  # token 1 of a row stands at 0
            if not len(places):
                continue
            line = known.get(row_id)
            if line is None or len(line[2]) != int(mask.sum()) - 1:
                has = "nothing" if line is None else f"{len(line[2]) + 1} tokens"
                raise ValueError(
                    f"{self.name}: the teacher read {has} of row {row_id}, which has {int(mask.sum())} tokens now; "
                    "train on the rows that prepare(context) returns, or ask the teacher while training (teacher: live)"
                )
            found.append(tuple(array[places] for array in line))
        ids, log_probs, rest = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*found, strict=True))
        return SoftTargets(ids.long(), log_probs, rest, self.temperature).to(where.device)


@dataclass(frozen=True)
class SoftTargetShards:
    """A `Stored` teacher in the making: `ask` is called for the rows of each shard that is not there yet."""

    folder: Path
    key: Mapping[str, str | int | float]
    rows: Sequence[Row]
    teacher: LiveTeacher
    ask: Ask
    name: str = "lwf"

    def fill(self, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """Asks for the shards `number`, `number + count`, ...; yields tokens read and seconds of each new one."""
        shards = self._shards()
        for part in range(number, len(shards.parts), count):
            begin, fresh = time.perf_counter(), not shards.path(part).with_suffix(".json").is_file()
            some = [self.rows[at] for at in shards.parts[part]]
            kept(shards.path(part), shards.key_of(part), partial(self.ask, some), _write, _read)
            if fresh:
                yield sum(len(row) for row in some), time.perf_counter() - begin

    def stored(self) -> Stored:
        """Returns the teacher; what is missing is asked now. Raises ValueError where it was kept for something else."""
        for _ in self.fill():
            pass
        return Stored(self.folder, len(self._shards().parts), self.teacher.temperature, self.name)

    def _shards(self) -> Shards:
        key = {**self.key, "k": self.teacher.k, "temperature": self.teacher.temperature}
        return Shards(self.folder, key, "soft_targets", self.rows)


def ask_model(model: PreTrainedModel, pad_id: int, rows: Sequence[Row], teacher: LiveTeacher) -> Lines:
    """Returns what `model` says at every token of each row, from the second on; without autocast."""
    found: Lines = [("", np.empty(0), np.empty(0), np.empty(0))] * len(rows)
    with answering(model, torch.float32):
        for bucket in buckets([len(row) for row in rows], 32):
            batch = padded([rows[i] for i in bucket], pad_id, "right", device_of(model))
            targets = live_targets(model, batch, batch.predicted(), teacher).to("cpu")
            sizes = [len(rows[i]) - 1 for i in bucket]
            parts = zip(*(a.split(sizes) for a in (targets.ids, targets.log_probs, targets.rest)), strict=True)
            for i, (ids, log_probs, rest) in zip(bucket, parts, strict=True):
                found[i] = (rows[i].row_id, _narrow(ids), log_probs.float().numpy(), rest.float().numpy())
    return found


def _narrow(ids: Tensor) -> np.ndarray:
    return ids.numpy().astype(np.uint16 if int(ids.max()) < 2**16 else np.uint32)


def _batch_of(lines: Lines) -> pa.RecordBatch:
    def lists(arrays: Sequence[np.ndarray]) -> pa.Array:
        offsets = np.cumsum([0, *(array.size for array in arrays)], dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([array.ravel() for array in arrays])))

    names, ids, log_probs, rest = zip(*lines, strict=True)
    columns = {"row_id": pa.array(names), "ids": lists(ids), "log_probs": lists(log_probs), "rest": lists(rest)}
    return pa.RecordBatch.from_pydict(columns)


def _write(lines: Lines, path: Path) -> None:
    with replacing(path, shared=True) as unfinished:
        pq.write_table(pa.Table.from_batches([_batch_of(lines)]), unfinished, compression="zstd")


def _read(path: Path) -> Lines:
    return _lines_of(pq.read_table(path, partitioning=None).combine_chunks().to_batches()[0])


def _lines_of(batch: pa.RecordBatch) -> Lines:
    names = batch.column("row_id").to_pylist()
    columns = [batch.column(name) for name in ("ids", "log_probs", "rest")]
    values = [column.values.to_numpy() for column in columns]
    offsets = [column.offsets.to_numpy() for column in columns]
    lines: Lines = []
    for n, name in enumerate(names):
        ids, log_probs, rest = (v[o[n] : o[n + 1]] for v, o in zip(values, offsets, strict=True))
        lines.append((name, ids.reshape(len(rest), -1), log_probs.reshape(len(rest), -1), rest))
    return lines


class _OnDisk(Mapping[str, Arrays]):
    """Lines in an Arrow file without a name; 16 bytes for each are in memory."""

    def __init__(self, lines: Iterable[Line], wide: bool, folder: Path | None) -> None:
        kinds = [pa.uint32() if wide else pa.uint16(), pa.float32(), pa.float32()]
        lists = zip(("ids", "log_probs", "rest"), map(pa.list_, kinds), strict=True)
        self._schema = pa.schema([("row_id", pa.string()), *lists])
        self._file = BatchFile(self._schema, folder)
        keys, self._begins = array("Q"), [0]
        for some in _together(lines):
            self._file.write(_batch_of(some).cast(self._schema))
            keys.extend(key_of(line[0]) for line in some)
            self._begins.append(len(keys))
        unsorted = np.frombuffer(keys, np.uint64)
        self._order = np.argsort(unsorted, kind="stable")
        self._keys = unsorted[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        batches = map(self._file.batch, range(len(self._file.places)))
        return chain.from_iterable(batch.column("row_id").to_pylist() for batch in batches)

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the line
        return isinstance(name, str) and self._number(name) is not None

    def __getitem__(self, name: str) -> Arrays:
        number = self._number(name)
        if number is None:
            raise KeyError(name)
        batch = bisect_right(self._begins, number) - 1
        ((_, ids, log_probs, rest),) = _lines_of(self._file.batch(batch).slice(number - self._begins[batch], 1))
        return ids, log_probs, rest

    def _number(self, name: str) -> int | None:
        """Returns which line, counted from 0, is that of a row; None where none is."""
        key = np.uint64(key_of(name))
        at = int(np.searchsorted(self._keys, key, "right")) - 1
        return int(self._order[at]) if at >= 0 and self._keys[at] == key else None


def _together(lines: Iterable[Line]) -> Iterator[Lines]:
    """Yields lines in order, at most `READ` tokens at a time, or one line."""
    some, tokens = list[Any](), 0
    for line in lines:
        if some and tokens + len(line[3]) > READ:
            yield some
            some, tokens = [], 0
        some.append(line)
        tokens += len(line[3])
    yield some


@lru_cache(maxsize=4)
def _loaded(folder: Path, shards: int) -> Mapping[str, Arrays]:
    """Returns the lines of all shards by row: in memory where they are few, else on disk."""
    paths = [folder / f"part-{number:05d}.parquet" for number in range(shards)]
    lines = (line for path in paths for line in _read(path))
    known = [pq.read_metadata(path) for path in paths]
    tokens = sum(values_in(one, "rest") for one in known)
    if sum(one.num_rows for one in known) <= stored.FEW_ROWS and tokens <= stored.FEW_TOKENS:
        return {name: (ids, log_probs, rest) for name, ids, log_probs, rest in lines}
    wide = any(pq.read_schema(path).field("ids").type.value_type == pa.uint32() for path in paths)
    return _OnDisk(lines, wide, folder if os.access(folder, os.W_OK) else None)
