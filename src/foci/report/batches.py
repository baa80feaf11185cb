"""The table of a run that goes on: each batch of pages, how much of it is known after every batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from foci.report.tables import Table, html
from foci.report.words import count, decimal, number, percent

MOST = 3
"""Batches whose columns a terminal shows: the last ones, beside the untouched model."""
NOTE = (
    "Rows: the pages. Columns: the model, first untouched, then after each batch of pages. Numbers: questions about "
    "the pages that are answered right, in %; in brackets the answer tokens that are predicted. Kept: of the general "
    "facts that the untouched model answers, in %."
)


def batch_table(batches: Mapping[str, Any], most: int | None = None) -> Table:
    """Returns the table of an arm's `batches` (see `foci.learn.earlier`), with the last `most` batches' columns."""
    after = list(batches["after"])
    chosen = [0, *range(1, len(after))[-most if most else None :]]
    heads = ["\npages", "\nquestions", *(f"after\n{after[n]}" if n else "\nuntouched" for n in chosen)]
    rows = [[str(page["name"]), count(page["probes"]), *_answers(page, chosen)] for page in batches["pages"]]
    general = batches["general"]
    if general.get("known"):
        rows.append(["general facts, kept", count(general["known"]), *_cells(general["kept"], chosen)])
    if any(number(bits) is not None for bits in general["bits_per_byte"]):
        bits = (decimal(_at(general["bits_per_byte"], n)) for n in chosen)
        rows.append(["general text, bits per byte", "", *bits])
    return Table(heads, rows)


def _answers(page: Mapping[str, Any], chosen: Sequence[int]) -> list[str]:
    """Returns the shares of whole answers, with those of answer tokens in brackets."""
    tokens = page.get("tokens") or []
    pairs = ((percent(_at(page["learned"], n)), number(_at(tokens, n))) for n in chosen)
    return [whole if some is None else f"{whole} ({percent(some, 0)})" for whole, some in pairs]


def _cells(shares: Sequence[Any], chosen: Sequence[int]) -> list[str]:
    return [percent(_at(shares, n)) for n in chosen]


def _at(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None


def batches_of(arm: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns an arm's batches; None in a run that went on from none, or where they are not whole."""
    found = arm.get("batches")
    whole = isinstance(found, Mapping) and {"after", "pages", "general"} <= found.keys()
    return found if whole else None


def earlier_pages(arm: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Returns of the questions about earlier pages their number, and how many were answered right before and after.

    None where there are none, as in a run that went on from none.
    """
    found = batches_of(arm)
    pages = [] if found is None else [p for p in found["pages"][:-1] if p.get("probes")]
    known = [(p["probes"], *(number(_at(p["learned"], n)) for n in (-2, -1))) for p in pages]
    whole = [(n, was, now) for n, was, now in known if was is not None and now is not None]
    if not whole:
        return None
    return sum(n for n, _, _ in whole), round(sum(n * w for n, w, _ in whole)), round(sum(n * w for n, _, w in whole))


def page_tables(arms: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Markup]]:
    """Returns the name and the table of every arm that went on."""
    return [(name, html(batch_table(found))) for name, arm in arms if (found := batches_of(arm)) is not None]
