"""Parquet tables: .parquet, one document per record of the table."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from foci.corpus.documents import BadLine, Document, Format
from foci.corpus.records import documents_of, is_read


class Parquet(Format):
    """One document per record of the table; `text_field` is the column of its text."""

    endings = (".parquet",)

    def read(self, source: str, text_field: str) -> Iterator[Document | BadLine]:
        """Yields one document or one bad line per row. Raises ValueError where the table has no such column."""
        try:
            table = pq.ParquetFile(source)
        except pa.ArrowInvalid as error:
            yield BadLine(source, 1, f"not a parquet file ({error})")
            return
        names = table.schema_arrow.names
        if text_field not in names:
            raise ValueError(
                f"corpus file {source}: expected a column {text_field!r}, got {', '.join(names)}; set corpus.text_field"
            )
        wanted = [name for name in names if is_read(name, text_field)]
        records = (record for part in table.iter_batches(columns=wanted) for record in part.to_pylist())
        yield from documents_of(records, source, text_field)
