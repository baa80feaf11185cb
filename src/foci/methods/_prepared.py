"""Shared by methods that prepare: the base of what `prepare` returns, and columns that are made once and kept."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from foci import models
from foci.corpus import read_rows, tokenizer_fingerprint, write_rows
from foci.corpus.store import rows_key
from foci.focus import Batch, Context, Row
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


def add_column(rows: Sequence[Row], name: str, values: Iterable[Sequence[int | float]]) -> list[Row]:
    """Returns the rows with one more column, given row by row in their order."""
    return [replace(row, columns={**row.columns, name: tuple(v)}) for row, v in zip(rows, values, strict=True)]


def kept_column(
    context: Context,
    name: str,
    key: Mapping[str, str | int | float],
    compute: Callable[[Sequence[Row]], Iterable[Sequence[int | float]]],
    rows: Sequence[Row] | None = None,
) -> list[Row]:
    """Returns the context's rows with the column `name`: computed now, or read where it was kept before.

    `compute` gives one number per token of each row of `rows` (None: all); other rows have 0 on every token. The column
    is kept as NAME.parquet in the context's folder and joined by `row_id`. `key` says what it depends on beside the
    rows. Raises ValueError where it was kept for something else.
    """
    some = context.rows if rows is None else rows

    def computed() -> list[Row]:
        made = zip(some, compute(some), strict=True)
        return [Row(row.row_id, row.input_ids, columns={name: tuple(values)}) for row, values in made]

    key = {**key, "rows": rows_key(context.rows)}
    scored = kept(context.folder / f"{name}.parquet", key, computed, write_rows, read_rows)
    by_id = {row.row_id: row.columns[name] for row in scored}
    return add_column(context.rows, name, (by_id.get(row.row_id, (0.0,) * len(row)) for row in context.rows))


def named_model(name: str, context: Context, who: str) -> PreTrainedModel:
    """Loads another model, in float32, on the device of the context's. `who` says in errors what it is for.

    Raises ValueError where its tokenizer is another one, and what `foci.models.load` raises.
    """
    loaded = models.load(name, dtype="float32", device=str(context.model.device))
    theirs, ours = tokenizer_fingerprint(loaded.tokenizer), tokenizer_fingerprint(context.tokenizer)
    if theirs != ours:
        raise ValueError(
            f"{who} {name!r} has another tokenizer ({theirs}) than the model that learns ({ours}), so what it says is "
            "of other tokens; name a model of the same tokenizer"
        )
    return loaded.model


def column_of(batch: Batch, name: str, method: str) -> Float[Tensor, "batch seq"]:
    """Returns a column of a batch. Raises ValueError, in the name of `method`, where it is not there."""
    if name not in batch.columns:
        raise ValueError(
            f"{method} reads the column {name!r}, got {sorted(batch.columns) or 'no columns'}; train on the rows that "
            "its prepare(context) returns"
        )
    return batch.columns[name]
