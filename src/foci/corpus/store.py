"""Writes and reads rows and bad lines; each file appears whole or not at all."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foci.corpus.documents import BadLine
from foci.focus import Row
from foci.system.files import replacing

_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("starts", pa.list_(pa.int64()), nullable=False),
        pa.field("ends", pa.list_(pa.int64()), nullable=False),
        pa.field("columns", pa.map_(pa.string(), pa.list_(pa.float64())), nullable=False),
    ]
)


def write_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Writes rows as parquet, one record per row, without loss; replaces an existing file."""
    fields: dict[str, list[object]] = {
        "row_id": [row.row_id for row in rows],
        "source": [row.source for row in rows],
        "text": [row.text for row in rows],
        "input_ids": [row.input_ids for row in rows],
        "starts": [[start for start, _ in row.offsets] for row in rows],
        "ends": [[end for _, end in row.offsets] for row in rows],
        "columns": [list(row.columns.items()) for row in rows],
    }
    with replacing(Path(path), shared=True) as partial:
        pq.write_table(pa.table(fields, schema=_SCHEMA), partial, compression="zstd")


def read_rows(path: str | Path) -> list[Row]:
    """Returns the rows that `write_rows` wrote, in order. Raises ValueError when the file holds no rows."""
    try:
        table = pq.read_table(path, partitioning=None)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: expected rows as parquet, got {error}; make it anew") from error
    if missing := [name for name in _SCHEMA.names if name not in table.column_names]:
        raise ValueError(f"{path}: expected rows of foci, got a table without {', '.join(missing)}; make it anew")
    rows: list[Row] = []
    for batch in table.select(_SCHEMA.names).to_batches():
        names, sources, texts, ids, starts, ends, columns = batch.columns
        offsets = (tuple(zip(a, b, strict=True)) for a, b in zip(_lists(starts), _lists(ends), strict=True))
        plain = (names.to_pylist(), _lists(ids), texts.to_pylist(), offsets, _mappings(columns))
        rows += map(Row, *plain, sources.to_pylist())
    return rows


def read_sources(path: str | Path) -> list[tuple[str, str]]:
    """Returns (source, text) of the rows that `write_rows` wrote, in order: quicker than whole rows.

    Raises ValueError when the file holds no rows.
    """
    try:
        table = pq.read_table(path, columns=["source", "text"], partitioning=None)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ValueError(f"{path}: expected rows as parquet, got {error}; make it anew") from error
    if missing := {"source", "text"} - set(table.column_names):
        raise ValueError(f"{path}: expected rows of foci, got a table without {', '.join(missing)}; make it anew")
    return list(zip(*(table.column(name).to_pylist() for name in ("source", "text")), strict=True))


def _lists(lists: pa.ListArray) -> Iterator[tuple[Any, ...]]:
    """Yields the lists as tuples; through NumPy, many times faster than `to_pylist`."""
    values = tuple(lists.values.to_numpy(zero_copy_only=False).tolist())
    return (values[start:end] for start, end in pairwise(lists.offsets.to_pylist()))


def _mappings(maps: pa.MapArray) -> Iterator[dict[str, tuple[float, ...]]]:
    pairs = list(zip(maps.keys.to_pylist(), _lists(maps.items), strict=True))
    return (dict(pairs[start:end]) for start, end in pairwise(maps.offsets.to_pylist()))


def write_quarantine(bad: Iterable[BadLine], path: str | Path) -> None:
    """Writes one JSON object per bad line: file, line, reason, excerpt, and its place (a page) if it has one.

    Replaces an existing file.
    """
    held = (asdict(line) for line in bad)
    lines = (json.dumps({k: v for k, v in one.items() if v or k != "place"}, ensure_ascii=False) + "\n" for one in held)
    with replacing(Path(path), shared=True) as partial:
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")


def rows_key(rows: Sequence[Row]) -> str:
    """Returns 16 hex digits of the hash of all rows: their ids and tokens, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.row_id} {row.input_ids}\n".encode())
    return digest.hexdigest()[:16]
