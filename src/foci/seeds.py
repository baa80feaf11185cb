"""Makes random choices that are the same on every platform and in every version of Python."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value", bound=Any)


def random_of(name: str) -> random.Random:
    """Returns random numbers that depend on the name alone (Python seeds from its SHA-512, not its hash())."""
    return random.Random(name)  # noqa: S311


def endless(pool: Sequence[Value], rng: random.Random) -> Iterator[Value]:
    """Yields the pool in a new order again and again, so that counts of two values differ by at most one."""
    while True:
        yield from shuffled(pool, rng)


def shuffled(pool: Sequence[Value], rng: random.Random) -> list[Value]:
    """Returns the pool in random order, by `random()` alone: the only method whose numbers Python never changes."""
    return [value for _, value in sorted((rng.random(), value) for value in pool)]


def generator(*key: object) -> np.random.Generator:
    """Returns a random generator that depends on the values of `key` alone, on every machine."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def drawn_places(ids: Iterable[str], seed: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Returns the places of things in the order of `drawn`, which takes 40 bytes for each; `ids` are theirs."""
    digests = bytearray()
    for id in ids:
        digests += hashlib.sha256(f"{seed}/{id}".encode()).digest()
    return np.argsort(np.frombuffer(bytes(digests), dtype="S32"), kind="stable")


Item = TypeVar("Item")


def drawn(items: Sequence[Item], seed: int, id: Callable[[Item], str]) -> list[Item]:
    """Returns the items in an order that depends on `seed` and their ids alone: ascending SHA-256 of "seed/id".

    So the order of two items depends neither on the other items nor on the order of a file.
    """
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}/{id(item)}".encode()).digest())
