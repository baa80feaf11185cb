"""Tells which of several processes this one is, as a launcher such as torchrun says. Imports no torch."""

import os


def count() -> int:
    """Returns how many processes the launcher started together; 1 without a launcher.

    Raises ValueError, as `local_count` and `number` do, where the launcher's variable is no such number.
    """
    return _number("WORLD_SIZE", 1, 1, None)


def local_count() -> int:
    """Returns how many of the processes run on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1, 1, count()) if count() > 1 else 1


def number() -> int:
    """Returns the number of this process, from 0."""
    return _number("RANK", 0, 0, count() - 1) if count() > 1 else 0


def is_first() -> bool:
    """Returns whether this process is the one that reads input, writes files and prints."""
    return number() == 0


def check() -> None:
    """Raises ValueError where a variable of the launcher is no such number."""
    count(), local_count(), number()


def _number(name: str, default: int, least: int, most: int | None) -> int:
    """Returns the whole number in a variable of the environment; `default` where it is not set or empty."""
    text = os.environ.get(name, "").strip() or str(default)
    if text.isascii() and text.isdigit() and least <= int(text) and (most is None or int(text) <= most):
        return int(text)
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(
        f"the environment variable {name} is {text!r}, expected a whole number {limits}, as torchrun sets it; start "
        f"foci by torchrun, or without a launcher: unset {name}"
    )
