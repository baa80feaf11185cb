"""Counts with their nouns, as people write them: "1 row", "2 rows"."""


def form(count: int | float, one: str, many: str | None = None) -> str:
    """Returns the form of a word that belongs to a count: `one` for 1, else `many` (by default with an s).

    >>> form(1, "row"), form(0, "row"), form(2, "is", "are")
    ('row', 'rows', 'are')
    """
    return one if count == 1 else many or f"{one}s"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Returns a count with its noun.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count:,} {form(count, one, many)}"
