"""Shared by methods that prepare: the base of what `prepare` returns, and columns that are made once and kept."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from math import inf
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from foci import models
from foci.corpus import read_rows, tokenizer_fingerprint, write_rows
from foci.corpus.store import groups, rows_key
from foci.corpus.stored import written
from foci.focus import Batch, Context, Row
from foci.rows import Rows, lengths_of
from foci.system.cache import kept


class Prepared:
    """Base of the frozen dataclasses that `prepare` returns: `settings`, and fields for what was found.

    The repr is the record of the experiment: the settings under their own name, as a run file gives them, and what was
    found. Fields with repr=False are left out.
    """

    settings: Any

    def __repr__(self) -> str:
        own = {f.name: getattr(self.settings, f.name) for f in fields(self.settings) if f.repr}
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}  # type: ignore[arg-type]
        found.pop("settings")
        return f"{type(self.settings).__name__}({', '.join(f'{k}={v!r}' for k, v in {**own, **found}.items())})"


def add_column(
    rows: Sequence[Row], name: str, values: Iterable[Sequence[int | float]], folder: Path | None = None
) -> Sequence[Row]:
    """Returns the rows with one more column, given row by row in their order.

    Rows on disk are written again, to a file of `folder` (None: TMPDIR); others are a list. Raises ValueError where
    another method has written other numbers into the column, which both would read then.
    """
    made = (_with_column(row, name, tuple(v)) for row, v in zip(rows, values, strict=True))
    return written(made, folder) if isinstance(rows, Rows) else list(made)


def _with_column(row: Row, name: str, values: tuple[int | float, ...]) -> Row:
    if row.columns.get(name, values) != values:
        raise ValueError(
            f"two methods of one arm write the column {name!r}, with other numbers: row {row.row_id} has some already; "
            "the column can hold those of one alone, so leave out one of the methods"
        )
    return replace(row, columns={**row.columns, name: values})


def kept_column(
    context: Context,
    name: str,
    key: Mapping[str, str | int | float],
    compute: Callable[[Sequence[Row]], Iterable[Sequence[int | float]]],
    rows: Sequence[Row] | None = None,
) -> Sequence[Row]:
    """Returns the context's rows with the column `name`: computed now, or read where it was kept before.

    `compute` gives one number per token of each of some rows. It is asked about `rows` (None: all), a group of them
    after another (`groups`), whether they are in memory or on disk; other rows have 0 on every token. The column is
    kept as NAME.parquet in the context's folder. `key` says what it depends on beside the rows. Raises ValueError where
    it was kept for something else.
    """
    some = context.rows if rows is None else rows

    def computed() -> Sequence[Row]:
        made = (pair for group in groups(some) for pair in zip(group, compute(group), strict=True))
        alone = (Row(row.row_id, row.input_ids, columns={name: tuple(values)}) for row, values in made)
        return written(alone, context.folder)

    key = {**key, "rows": rows_key(context.rows)}
    scored = kept(context.folder / f"{name}.parquet", key, computed, write_rows, read_rows)
    columns: Iterable[Sequence[int | float]] = (row.columns[name] for row in scored)
    if rows is not None:
        by_id = {row.row_id: row.columns[name] for row in scored}
        columns = (by_id.get(row.row_id, (0.0,) * len(row)) for row in context.rows)
    return add_column(context.rows, name, columns, context.folder)


def range_of(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """Returns the least and the largest value of a column, first tokens left out; 0 and 0 where there is none."""
    least, most = inf, -inf
    for row in rows:
        values = row.columns[name][1:]
        least, most = min((least, *values)), max((most, *values))
    return (least, most) if least <= most else (0.0, 0.0)


def named_model(name: str, context: Context, who: str) -> PreTrainedModel:
    """Loads another model, in float32, on the device of the context's. `who` says in errors what it is for.

    Raises ValueError where its tokenizer is another one, or rows are longer than it reads, and what `foci.models.load`
    raises.
    """
    loaded = models.load(name, dtype="float32", device=str(context.model.device))
    theirs, ours = tokenizer_fingerprint(loaded.tokenizer), tokenizer_fingerprint(context.tokenizer)
    if theirs != ours:
        raise ValueError(
            f"{who} {name!r} has another tokenizer ({theirs}) than the model that learns ({ours}), so what it says is "
            "of other tokens; name a model of the same tokenizer"
        )
    check_lengths(context.rows, loaded.max_length, f"{who} {name!r}")
    return loaded.model


def check_lengths(rows: Sequence[Row], most: int, who: str) -> None:
    """Raises ValueError where a row is longer than a model reads (tokens); `who` names the model in the error."""
    longest = int(lengths_of(rows).max()) if rows else 0
    if longest > most:
        raise ValueError(f"{who} reads at most {most} tokens, and a row has {longest}; lower corpus.max_length")


def column_of(batch: Batch, name: str, method: str) -> Float[Tensor, "batch seq"]:
    """Returns a column of a batch. Raises ValueError, in the name of `method`, where it is not there."""
    if name not in batch.columns:
        raise ValueError(
            f"{method} reads the column {name!r}, got {sorted(batch.columns) or 'no columns'}; train on the rows that "
            "its prepare(context) returns"
        )
    return batch.columns[name]
