"""Random choices that are the same on every platform and in every version of Python."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value", bound=Any)


def random_of(name: str) -> random.Random:
    """Random numbers that depend on the name alone (Python seeds from a string's SHA-512, not its hash())."""
    return random.Random(name)  # noqa: S311


def endless(pool: Sequence[Value], rng: random.Random) -> Iterator[Value]:
    """The pool in a new order again and again: counts of any two values never differ by more than one."""
    while True:
        yield from shuffled(pool, rng)


def shuffled(pool: Sequence[Value], rng: random.Random) -> list[Value]:
    """The pool in random order, from `random()` alone: the one method whose numbers Python keeps for good."""
    return [value for _, value in sorted((rng.random(), value) for value in pool)]
