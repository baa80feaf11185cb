"""Parquet tables: .parquet, one document per record of the table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foci.corpus.documents import BadLine, Document, Format, Sample
from foci.corpus.records import documents_of, holds_examples, is_read
from foci.system.texts import HEAD, kind_of


class Parquet(Format):
    """One document per record of the table; `text_field` is the column of its text."""

    endings = (".parquet",)

    def read(self, source: str, text_field: str) -> Iterator[Document | Sample | BadLine]:
        """Yields one document or one bad line per row. Raises ValueError where the table has no such column."""
        try:
            table = pq.ParquetFile(source)
        except (pa.ArrowException, OSError) as error:
            yield BadLine(source, 1, self._damage(Path(source), error))
            return
        names = table.schema_arrow.names
        if not holds_examples(names, text_field):
            raise ValueError(
                f"corpus file {source}: expected a column {text_field!r}, got {', '.join(names)}; set "
                "corpus.text_field (conversations have a column 'messages')"
            )
        wanted = [name for name in names if is_read(name, text_field)]
        records = (
            record for part in table.iter_batches(columns=wanted) for record in map(_as_written, part.to_pylist())
        )
        try:
            yield from documents_of(records, source, text_field)
        except (pa.ArrowException, OSError) as error:
            yield BadLine(source, 1, self._damage(Path(source), error))

    def _damage(self, path: Path, error: Exception) -> str:
        """Returns what is wrong with a file that is no whole table."""
        with path.open("rb") as handle:
            head = handle.read(HEAD)
        if (kind := kind_of(head)) and not head.startswith(b"PAR1"):
            return "; ".join(kind)
        reason = str(error).partition("\n")[0].partition(". ")[0]
        if head.startswith(b"PAR1"):
            return f"a parquet file that is cut or damaged ({reason}); get it again"
        return f"not a parquet file ({reason}); get it again, or give it the ending of what it is"


def _as_written(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record without the nulls that a table gives to objects: all objects of a column have the same keys."""
    return {name: _without_nulls(value) for name, value in record.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value
