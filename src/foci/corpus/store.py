"""Writes and reads rows and bad lines; each file appears whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foci.corpus import stored
from foci.corpus.documents import BadLine
from foci.focus import Row
from foci.system.files import replacing

GROUP, TOKENS = 2**12, 2**18
"""Rows and tokens of a row group of a file, at most."""
STEP = 2**12
"""Rows that are read at a time."""
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
    with replacing(Path(path), shared=True) as partial, pq.ParquetWriter(partial, _SCHEMA, compression="zstd") as file:
        for group in groups(rows):
            file.write_batch(stored.batch_of(group).cast(_SCHEMA), GROUP)


def groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yields the rows in groups of at most `GROUP` rows and `TOKENS` tokens (or one row), at least one group."""
    group, tokens = list[Row](), 0
    for row in rows:
        if group and (len(group) == GROUP or tokens + len(row) > TOKENS):
            yield group
            group, tokens = [], 0
        group.append(row)
        tokens += len(row)
    yield group


def read_rows(path: str | Path) -> Sequence[Row]:
    """Returns the rows that `write_rows` wrote, in order: a list, or where they are many, rows on disk (`stored`).

    The disk is that of the file, or that of TMPDIR where no file can be written there. Raises ValueError when the file
    holds no rows.
    """
    try:
        with pq.ParquetFile(path) as file:
            if missing := [name for name in _SCHEMA.names if name not in file.schema_arrow.names]:
                raise ValueError(
                    f"{path}: expected rows of foci, got a table without {', '.join(missing)}; make it anew"
                )
            batches = file.iter_batches(STEP, columns=_SCHEMA.names)
            if file.metadata.num_rows <= stored.FEW_ROWS and values_in(file.metadata, "input_ids") <= stored.FEW_TOKENS:
                return [row for batch in batches for row in stored.rows_of(batch.select(_SCHEMA.names))]
            folder = Path(path).parent
            return stored.stored(
                (batch.select(_SCHEMA.names) for batch in batches), folder if os.access(folder, os.W_OK) else None
            )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: expected rows as parquet, got {error}; make it anew") from error


def values_in(known: pq.FileMetaData, name: str) -> int:
    """Returns the number of values in all lists of a column, as the file tells it."""
    places = [n for n in range(known.num_columns) if known.schema.column(n).path.startswith(f"{name}.")]
    groups = (known.row_group(number) for number in range(known.num_row_groups))
    return sum(group.column(place).num_values for group in groups for place in places)


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
