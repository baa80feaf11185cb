"""Drops tokens that a small model already attends to, keeps those that a larger one attends to (arXiv 2409.17954).

    d[j] = s_large[j] - s_small[j]              s: attention received (`foci.attention.received`)
    r[j] = rank of d[j], the largest 0
    p[j] = alpha (1 - exp(-beta r[j]))          the chance that token j is dropped in a reading

In the offline stage both models read the corpus once. In training tokens are deleted, and what is aligned with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator

from foci.corpus.samples import samples
from foci.focus import Context, EditsTokens, Prepares, Row
from foci.methods._prepared import Prepared
from foci.methods.contrast.cached import CachedAttention
from foci.methods.contrast.corpus_attention import AttentionQuery
from foci.methods.contrast.dropping import By, RowAttention, chances, ranked
from foci.methods.contrast.premise import dropped, kinds
from foci.system.files import write_json

DROP = "contrast_drop"
"""Column: the chance that a token is dropped. Beside it `attention_large`, `attention_small`, `contrast` (their
difference) and `contrast_rank`, for whoever wants to look."""

Side = Literal["large", "small"]
SIDES: tuple[Side, ...] = ("large", "small")


@dataclass(frozen=True)
class Contrast(Prepares):
    """Randomly drops tokens, preferring those that the large model attends to no more than the small one.

    `large` and `small` name models as `model.name` does, null is the model that learns; `..._layers` chooses among
    their layers. `by` is the method ("difference") or a control at the same mean rate. `queries`, `without_first`: see
    `foci.methods.contrast.corpus_attention.AttentionQuery`. `copies`: 0 draws afresh at every reading, 10 reads the
    row and 10 fixed copies by turns. `blank` writes a space where a token is dropped. `scores`: a folder for attention
    that several arms share. `rate`: the mean share of tokens dropped, null = what "difference" drops by alpha and beta.
    """

    large: str | None
    small: str | None = None
    by: By = "difference"
    alpha: float = 0.6
    beta: float = 0.03
    queries: Literal["following", "later", "answers"] = "following"
    without_first: bool = False
    large_layers: tuple[int, ...] | None = None
    small_layers: tuple[int, ...] | None = None
    copies: int = 0
    blank: bool = False
    protected: tuple[str, ...] = (",", ".")
    scores: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    rate: float | None = None

    def __post_init__(self) -> None:
        if not (0 < self.alpha <= 1 and 0 < self.beta < float("inf") and self.copies >= 0):
            raise ValueError(
                "contrast expected alpha above 0 and at most 1, beta above 0 and copies of at least 0, got alpha "
                f"{self.alpha}, beta {self.beta}, copies {self.copies}; the paper's are 0.6, 0.03 and 10 (Gemma 2)"
            )
        if self.rate is not None and not 0 < self.rate < 1:
            raise ValueError(f"contrast expected a rate above 0 and below 1, got {self.rate}; null is the method's own")
        if (self.large, self.large_layers) == (self.small, self.small_layers):
            raise ValueError(
                f"contrast compares two models, got {self.large or 'the model that learns'!r} twice, with the same "
                "layers; name another large or small, or other layers"
            )

    def prepare(self, context: Context) -> tuple["ContrastEdits", Sequence[Row]]:
        """Adds to the rows their chances to be dropped, from attention that is computed now or was kept.

        Writes what the report shows to contrast.json. Raises ValueError where attention was kept for something else,
        the two models attend alike, or nothing can be dropped.
        """
        if taken := [row.row_id for row in context.rows if DROP in row.columns]:
            raise ValueError(f"row {taken[0]} has the column {DROP!r} already; a plan holds contrast once")
        large, small = (self._attention(context, side).column() for side in SIDES)
        of = kinds(context.rows)
        rows_seen = [self._received(*one, context) for one in zip(context.rows, large, small, of, strict=True)]
        drops = chances(rows_seen, self.by, self.alpha, self.beta, context.seed, self.rate)
        rows = [self._marked(*one, context.seed) for one in zip(context.rows, rows_seen, drops, strict=True)]
        rate = sum(float(drop.sum()) for drop in drops) / sum(len(row) for row in rows)
        space = _space(context) if self.blank else None
        online = ContrastEdits(self, round(rate, 6), dropped(of, drops), space)
        shown = [_shown(row, context) for row in samples(rows, context.seed)]
        write_json(context.folder / "contrast.json", {"method": repr(online), "rate": rate, "rows": shown})
        return online, rows

    def fill(self, context: Context, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """Computes both models' attention to the rows of part `number` of `count`, one shard after another."""
        for side in SIDES:
            yield from self._attention(context, side).fill(number, count)

    def premise(self, context: Context) -> Sequence[Mapping[str, str | int | float | None]]:
        """Measures how much each model looks from the token before an answer to the name: see `contrast.premise`."""
        plain = replace(self, queries="following")  # the premise has a query of its own
        sides = {side: plain._attention(context, side).premise() for side in SIDES}
        return [{"side": side, **line} for side, lines in sides.items() for line in lines]

    def _marked(self, row: Row, received: RowAttention, drop: np.ndarray, seed: int) -> Row:
        columns = {
            "attention_large": received.large,
            "attention_small": received.small,
            "contrast": received.difference,
            "contrast_rank": ranked(received, self.by, seed),
            DROP: drop,
        }
        return replace(row, columns={**row.columns, **{name: tuple(made.tolist()) for name, made in columns.items()}})

    def _attention(self, context: Context, side: Side) -> CachedAttention:
        name, layers = (self.large, self.large_layers) if side == "large" else (self.small, self.small_layers)
        query = AttentionQuery(self.queries, self.without_first, layers)
        return CachedAttention(name, query, self.dtype, Path(self.scores or context.folder).expanduser(), context)

    def _received(
        self, row: Row, large: Sequence[float], small: Sequence[float], of: Sequence[str] | None, context: Context
    ) -> RowAttention:
        """Joins both models' attention; special and protected tokens, and those that no query sees, may not go."""
        special = set(context.tokenizer.all_special_ids)
        free = [
            token not in special and word != "" and word.strip() not in self.protected and a + b > 0
            for token, word, a, b in zip(row.input_ids, _words(row, context), large, small, strict=True)
        ]
        plain = np.array([kind == "others" for kind in of or ()], dtype=bool) if of else None
        return RowAttention(row.row_id, np.array(large), np.array(small), np.array(free), plain)


@dataclass(frozen=True, repr=False)
class ContrastEdits(Prepared, EditsTokens):
    """Drops tokens by the chances in the column `contrast_drop`.

    `rate` is the mean chance over all tokens, `dropped` that of names, answers and all other tokens, where the corpus
    says what they are. `space` is the token that is written where one is dropped; None deletes it.
    """

    settings: Contrast
    rate: float
    dropped: tuple[tuple[str, float], ...] = ()
    space: int | None = field(default=None, repr=False)

    def draw(self, epoch: int, copy: int) -> tuple[int, int] | None:
        """Numbers the readings: with `copies`, reading n is copy n mod (copies + 1), of which 0 is the row as it is."""
        if not self.settings.copies:
            return epoch, copy
        version = (epoch + copy) % (self.settings.copies + 1)
        return (0, version) if version else None

    def edit(self, row: Row, rng: Generator) -> Row:
        """Deletes the tokens that the draw drops (or puts spaces in their place); at least two stay.

        Raises ValueError for a row without its chances.
        """
        if DROP not in row.columns:
            raise ValueError(
                f"contrast reads the column {DROP!r}, row {row.row_id} has {sorted(row.columns) or 'no columns'}; "
                "train on the rows that its prepare(context) returns"
            )
        drops = row.columns[DROP]
        stays = rng.random(len(row)) >= np.asarray(drops)
        if self.space is not None:
            ids = (token if stay else self.space for token, stay in zip(row.input_ids, stays, strict=True))
            return replace(row, input_ids=tuple(ids))
        gone = sorted(np.flatnonzero(~stays).tolist(), key=lambda t: drops[t])
        stays[gone[: max(0, 2 - int(stays.sum()))]] = True
        return row.take(np.flatnonzero(stays).tolist())


def _words(row: Row, context: Context) -> list[str]:
    """Returns the text of every token; "" for one that stands for none."""
    if row.offsets:
        return [row.text[start:end] for start, end in row.offsets]
    return [str(context.tokenizer.decode([token])) for token in row.input_ids]


def _space(context: Context) -> int:
    """Returns the id of the token that is one space. ValueError where a tokenizer has none."""
    ids = context.tokenizer(" ", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(
            f"contrast with blank: true needs a token that is one space, the tokenizer makes {len(ids)} of it; delete "
            "tokens instead (blank: false)"
        )
    return int(ids[0])


def _shown(row: Row, context: Context) -> dict[str, Any]:
    """Describes a row for the report; a special token by its name."""
    names = context.tokenizer.convert_ids_to_tokens(list(row.input_ids))
    words = [word or name for word, name in zip(_words(row, context), names, strict=True)]
    columns = {"large": "attention_large", "small": "attention_small", "difference": "contrast", "drop": DROP}
    values = {short: [round(v, 6) for v in row.columns[long]] for short, long in columns.items()}
    return {"row_id": row.row_id, "source": row.source, "tokens": words, **values}
