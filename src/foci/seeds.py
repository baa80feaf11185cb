"""Random choices that are the same on every platform and in every version of Python."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

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


def generator(*key: object) -> np.random.Generator:
    """A random generator that depends on the values of `key` alone, on every machine."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


Item = TypeVar("Item")


def drawn(items: Sequence[Item], seed: int, id: Callable[[Item], str]) -> list[Item]:
    """The items in an order that `seed` and each one's own id decide (SHA-256 of "seed/id", ascending).

    Whether an item comes before another never depends on what else is there, nor on the order of a file.
    """
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}/{id(item)}".encode()).digest())
