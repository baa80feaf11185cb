"""Words that errors share: the nearest correct name, and a value short enough to show."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: str, choices: Iterable[str]) -> str | None:
    """Returns the choice most similar to `name`, None where none is similar. Case, `-` and `_` do not count.

    >>> suggest("Learning-Rate", ["learning_rate", "epochs"])
    'learning_rate'
    """
    choice_of = {_letters(choice): choice for choice in choices}
    near = get_close_matches(_letters(name), choice_of, n=1, cutoff=0.6)
    return choice_of[near[0]] if near else None


def hint(name: str, choices: Iterable[str]) -> str:
    """Returns the cure for a wrong name: the most similar choice, or all of them where none is similar.

    >>> hint("orakle", ["oracle", "rho"])
    "did you mean 'oracle'?"
    >>> hint("x", ["oracle", "rho"])
    'known: oracle, rho'
    """
    known = list(choices)
    nearest = suggest(name, known)
    return f"did you mean {nearest!r}?" if nearest else f"known: {', '.join(known) or 'none'}"


def shown(value: object, limit: int = 60) -> str:
    """Returns a value as an error shows it: as written, without its middle beyond `limit` characters.

    >>> shown("sixteen"), shown(None), shown(True)
    ("'sixteen'", 'nothing (null)', 'true')
    """
    if value is None:
        return "nothing (null)"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def _letters(name: str) -> str:
    """Returns the name without case, - and _."""
    return name.lower().replace("-", "").replace("_", "")
