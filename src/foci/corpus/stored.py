"""Rows on disk: written while they are made, and read when they are asked for.

    rows = RowWriter()
    rows.add(row)                     # the first few stay in memory, all others go to a file without a name
    made = rows.rows()                # a tuple where they are few, else `StoredRows`

The file holds Arrow record batches of `BATCH` rows, one after another. It is read at a place (`pread`), not mapped:
what is mapped counts as the process' own memory once it was read, and this must not grow with the corpus. It has no
name, so it is gone when the rows are, also after a kill.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from foci.focus import Row
from foci.rows import Rows
from foci.system.scratch import Scratch

BATCH = 128
"""Rows of a record batch: what is read for one row."""
FEW_ROWS, FEW_TOKENS = 2**15, 2**21
"""The most rows, and tokens of rows, that stay in memory: some 100 MB."""

Ids = tuple[int, ...]
Places = tuple[tuple[int, int], ...]

_IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("input_ids", _IDS, nullable=False),
        pa.field("starts", _IDS, nullable=False),
        pa.field("ends", _IDS, nullable=False),
        pa.field("columns", pa.map_(pa.string(), pa.list_(pa.float64())), nullable=False),
    ]
)


class StoredRows(Rows):
    """Rows in a file that `RowWriter` wrote; `marks` are columns that a later row of the same text added to one."""

    def __init__(
        self, file: "RowFile", lengths: Int[np.ndarray, " row"], marks: Mapping[int, Mapping[str, Any]]
    ) -> None:
        self._file, self._lengths, self._marks = file, lengths, marks

    def __len__(self) -> int:
        return len(self._lengths)

    def row(self, index: int) -> Row:
        number, place = divmod(index, BATCH)
        (row,) = rows_of(self._file.batch(number).slice(place, 1))
        return self._marked(index, row)

    def __iter__(self) -> Iterator[Row]:
        for number, row in enumerate(chain.from_iterable(map(rows_of, self.batches()))):
            yield self._marked(number, row)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows as Arrow record batches, without later marks."""
        return map(self._file.batch, range(len(self._file.places)))

    def texts(self) -> Iterator[str]:
        return chain.from_iterable(batch.column("text").to_pylist() for batch in self.batches())

    def ids(self) -> Iterator[str]:
        return chain.from_iterable(batch.column("row_id").to_pylist() for batch in self.batches())

    @property
    def lengths(self) -> Int[np.ndarray, " row"]:
        return self._lengths

    @property
    def names(self) -> frozenset[str]:
        return self._file.names.union(*self._marks.values())

    @property
    def largest(self) -> int:
        return self._file.largest

    def _marked(self, number: int, row: Row) -> Row:
        return with_marks(row, self._marks[number]) if number in self._marks else row


class RowWriter:
    """Takes rows one after another and returns them as a sequence. `folder`: where they may lie (None: TMPDIR)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.tokens = 0
        self.lengths = array("i")
        self.marks: dict[int, dict[str, tuple[float, ...]]] = {}
        self._recent: list[Row] = []
        self._ids: dict[int, int] = {}
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._file: RowFile | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, row: Row) -> None:
        """Takes a row, made of what `shared` returned."""
        self._recent.append(row)
        self.lengths.append(len(row))
        self.tokens += len(row)
        if self._file is None and len(self) <= FEW_ROWS and self.tokens <= FEW_TOKENS:
            return
        self._file = self._file or RowFile(self.folder)
        if len(self._recent) >= BATCH:
            self._write(len(self._recent) // BATCH * BATCH)

    def mark(self, number: int, columns: Mapping[str, Sequence[float]]) -> None:
        """Adds columns to row `number`, which is there already: a token has the larger of two values."""
        size = self.lengths[number]
        fitting = {name: (*values[:size], *(0.0,) * (size - len(values))) for name, values in columns.items()}
        first = len(self) - len(self._recent)
        if number >= first:
            self._recent[number - first] = with_marks(self._recent[number - first], fitting)
        else:
            self.marks[number] = _larger(self.marks.get(number, {}), fitting)

    def rows(self) -> Sequence[Row]:
        """Returns all rows: a tuple where they are few. Nothing can be added afterwards."""
        if self._file is None:
            return tuple(self._recent)
        self._write(len(self._recent))
        return StoredRows(self._file, np.array(self.lengths, dtype=np.int32), self.marks)

    def shared(self, ids: Ids, offsets: Places) -> tuple[Ids, Places]:
        """Returns the same values in objects that the rows in memory share: a tenth of the memory."""
        if self._file is not None:
            return ids, offsets
        same, place = self._ids.setdefault, self._places.setdefault
        return tuple(map(same, ids, ids)), tuple(map(place, offsets, offsets))

    def _write(self, count: int) -> None:
        assert self._file is not None
        for begin in range(0, count, BATCH):
            self._file.write(batch_of(self._recent[begin : begin + BATCH]))
        del self._recent[:count]


class BatchFile:
    """A file without a name that holds record batches of a schema, and where each begins and how long it is.

    `folder` is where it takes its space (None: the folder for temporary files).
    """

    def __init__(self, schema: pa.Schema, folder: Path | None) -> None:
        self._file, self._schema = Scratch(folder), schema
        self.places = list[tuple[int, int]]()

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes a batch at the end."""
        raw = batch.serialize()
        self.places.append((self._file.append(memoryview(raw)), raw.size))

    def batch(self, number: int) -> pa.RecordBatch:
        """Returns the batch that was written as number `number`, counted from 0."""
        begin, size = self.places[number]
        return pa.ipc.read_record_batch(pa.py_buffer(self._file.read(begin, size)), self._schema)


class RowFile(BatchFile):
    """A file of rows; it knows the largest token id, and the columns that at least one row has."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(SCHEMA, folder)
        self.largest = -1
        self.names: frozenset[str] = frozenset()

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes rows at the end."""
        super().write(batch)
        ids, names = batch.column("input_ids").values, batch.column("columns").keys
        self.largest = max(self.largest, int(ids.to_numpy().max(initial=-1)))
        self.names |= frozenset(names.unique().to_pylist())


def written(rows: Iterable[Row], folder: Path | None = None) -> Sequence[Row]:
    """Returns rows that are made one after another: a tuple where they are few, else `StoredRows`."""
    writer = RowWriter(folder)
    for row in rows:
        writer.add(row)
    return writer.rows()


def stored(batches: Iterable[pa.RecordBatch], folder: Path | None = None) -> StoredRows:
    """Writes record batches of any size to a file without a name and returns their rows."""
    file, lengths, waiting = RowFile(folder), array("i"), list[pa.RecordBatch]()
    for batch in batches:
        lengths.extend(batch.column("input_ids").value_lengths().to_pylist())
        waiting.append(batch.cast(SCHEMA))
        if sum(one.num_rows for one in waiting) >= BATCH:
            (whole,) = pa.Table.from_batches(waiting).combine_chunks().to_batches()
            full = whole.num_rows // BATCH * BATCH
            for begin in range(0, full, BATCH):
                file.write(_own(whole.slice(begin, BATCH)))
            waiting = [whole.slice(full)] if full < whole.num_rows else []
    if waiting:
        (rest,) = pa.Table.from_batches(waiting).combine_chunks().to_batches()
        file.write(_own(rest))
    return StoredRows(file, np.array(lengths, dtype=np.int32), {})


def _own(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a part of a batch in memory of its own, so that `values` and `keys` are its own."""
    return pa.ipc.read_record_batch(batch.serialize(), SCHEMA)


def batch_of(rows: Sequence[Row]) -> pa.RecordBatch:
    """Returns rows as a record batch."""
    names = [row.columns for row in rows]
    offsets = np.array([len(row.offsets) for row in rows])
    places = _flat(np.int32, chain.from_iterable(row.offsets for row in rows))
    columns = [column for one in names for column in one.values()]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([row.row_id for row in rows], pa.string()),
            pa.array([row.source for row in rows], pa.string()),
            pa.array([row.text for row in rows], pa.string()),
            _listed([len(row) for row in rows], _flat(np.int32, (row.input_ids for row in rows)), pa.int32()),
            _listed(offsets, places[::2], pa.int32()),
            _listed(offsets, places[1::2], pa.int32()),
            pa.MapArray.from_arrays(
                _edges([len(one) for one in names]),
                pa.array(list(chain.from_iterable(names)), pa.string()),
                _listed([len(column) for column in columns], _flat(np.float64, columns), pa.float64()),
            ),
        ],
        schema=SCHEMA,
    )


def _flat(kind: Any, lists: Iterable[Iterable[Any]]) -> Any:
    """Returns the values of all lists, one after another, as an array."""
    return np.fromiter(chain.from_iterable(lists), kind)


def _edges(counts: Any) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]), pa.int32())


def _listed(counts: Any, values: Any, kind: pa.DataType) -> pa.ListArray:
    return pa.ListArray.from_arrays(_edges(counts), pa.array(values, kind))


def rows_of(batch: pa.RecordBatch) -> Iterator[Row]:
    """Returns the rows of a record batch, or of a part of one."""
    ids, sources, texts, tokens, starts, ends, columns = (batch.column(name) for name in SCHEMA.names)
    offsets = (tuple(zip(a, b, strict=True)) for a, b in zip(_lists(starts), _lists(ends), strict=True))
    plain = (ids.to_pylist(), _lists(tokens), texts.to_pylist(), offsets, _mappings(columns))
    return map(Row, *plain, sources.to_pylist())


def _lists(lists: pa.ListArray) -> Iterator[tuple[Any, ...]]:
    """Yields the lists as tuples; through NumPy, many times faster than `to_pylist`."""
    edges = lists.offsets.to_pylist()
    values = tuple(lists.values[edges[0] : edges[-1]].to_numpy(zero_copy_only=False).tolist())
    return (values[start - edges[0] : end - edges[0]] for start, end in pairwise(edges))


def _mappings(maps: pa.MapArray) -> Iterator[dict[str, tuple[float, ...]]]:
    edges = maps.offsets.to_pylist()
    first, last = edges[0], edges[-1]
    pairs = list(zip(maps.keys[first:last].to_pylist(), _lists(maps.items[first:last]), strict=True))
    return (dict(pairs[start - first : end - first]) for start, end in pairwise(edges))


def with_marks(row: Row, marks: Mapping[str, Sequence[float]]) -> Row:
    """Returns a row with further columns; where it has one already, a token has the larger value."""
    return replace(row, columns=_larger(row.columns, marks)) if marks else row


def _larger(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    both = {
        name: tuple(map(max, one[name], values)) if name in one else tuple(values) for name, values in other.items()
    }
    return {**one, **both}
