"""Numbers things in the order in which they are first seen: 16 bytes for each, however long they are."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Int64, UInt64

RECENT = 2**15
"""Keys that are in a dictionary, at most, before they are sorted into arrays."""


def key_of(text: str) -> int:
    """Returns a hash of 64 bits of a text."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def keys_of(texts: Iterable[str]) -> UInt64[np.ndarray, " key"]:
    """Returns the hash of each text."""
    return np.fromiter(map(key_of, texts), np.uint64)


class Seen:
    """The keys (64 bits) that were seen, each with its number.

    They lie in sorted arrays, each at least twice as long as the next, so that few are searched.
    """

    def __init__(self) -> None:
        self.count = 0
        self.recent: dict[int, int] = {}
        self.sorted: list[tuple[UInt64[np.ndarray, " key"], Int64[np.ndarray, " key"]]] = []

    def numbered(self, keys: Sequence[int]) -> Iterator[tuple[int, bool]]:
        """Yields for each key its number, counted from 0 in the order of first sight, and whether this is the first."""
        for key, before in zip(keys, self._before(keys), strict=True):
            known = self.recent.get(key, -1) if before < 0 else before
            if known < 0:
                self.recent[key] = self.count
                self.count += 1
            yield (self.count - 1 if known < 0 else known), known < 0
        if len(self.recent) >= RECENT:
            self._sort()

    def _before(self, keys: Sequence[int]) -> list[int]:
        wanted = np.array(keys, dtype=np.uint64)
        found = np.full(len(wanted), -1, dtype=np.int64)
        for known, numbers in self.sorted:
            at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
            found = np.where(known[at] == wanted, numbers[at], found)
        return found.tolist()

    def _sort(self) -> None:
        keys = np.fromiter(self.recent.keys(), np.uint64, len(self.recent))
        numbers = np.fromiter(self.recent.values(), np.int64, len(self.recent))
        while self.sorted and len(self.sorted[-1][0]) < 2 * len(keys):
            more = self.sorted.pop()
            keys, numbers = np.concatenate([keys, more[0]]), np.concatenate([numbers, more[1]])
        order = np.argsort(keys)
        self.sorted.append((keys[order], numbers[order]))
        self.recent = {}
