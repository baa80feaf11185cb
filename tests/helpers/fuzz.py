"""Damaged inputs by the thousand, each from its number: the same number gives the same input.

fuzz.damaged(b'{"text": "a"}', fuzz.rng("corpus", 17))    # bytes with a few faults in them
"""

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**400, -0.5, 1e-320, 1e308, float("nan"), float("inf")),
    *("", " ", "a", "\0", "\ud800", "é" * 40, "x" * 5000, "../..", "/", "null", "<s>", "<eos>", "\n", "${HOME}"),
    *("llama", "float32", [], {}, [[]], [None], [0], ["a"], {"a": 1}, {"": None}, [[[[[1]]]]], [1, "a", None]),
    list(range(100)),
]
"""Values to put in the place of others."""
PIECES = [
    *(b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xc3", b"\r", b"\n", b"\n\n", b"{", b"}", b"[", b"]", b'"'),
    *(b",", b":", b"\\", b"\\u0000", b"\\ud83d", b"null", b"NaN", b"1e999", b"-", b"9" * 5000, b"[" * 3000),
    *(b'{"a":' * 3000, b"<eos>", b"\xed\xa0\x80", "\u2028".encode(), "\u202e".encode(), b"\x1b[31m", b"&a *a"),
    *(b"<<: *a", b"!!python/none", b"---\n", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04"),
    *(b"%PDF-1.4", b"\x1f\x8b", b"? ", b"\t", b"- ", b"#"),
]
"""Bytes to put between others."""
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig")


def rng(what: str, number: int) -> random.Random:
    """Returns the random numbers of one input."""
    return random.Random(f"{what} {number}")


def damaged(raw: bytes, draw: random.Random, most: int = 3) -> bytes:
    """Returns bytes with one fault or a few: cut, flipped, doubled, filled in, or in another encoding."""
    for _ in range(draw.randint(1, most)):
        raw = _fault(raw, draw)
    return raw


def _fault(raw: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randint(0, len(raw)) for _ in range(2))
    kind = draw.randrange(8)
    if kind == 0:
        return raw[:start]
    if kind == 1:
        return raw[:start] + raw[end:]
    if kind == 2:
        return raw[:end] + raw[start:]
    if kind == 3 and raw:
        at = min(start, len(raw) - 1)
        return raw[:at] + bytes([draw.randrange(256)]) + raw[at + 1 :]
    if kind == 4:
        return raw[:start] + draw.randbytes(draw.randint(1, 40)) + raw[start:]
    if kind == 5:
        return raw.decode("utf-8", "replace").encode(draw.choice(ENCODINGS), "replace")
    if kind == 6:
        return b"" if draw.random() < 0.2 else raw * 2
    return raw[:start] + draw.choice(PIECES) + raw[start:]


def changed(value: Any, draw: random.Random, most: int = 3) -> Any:
    """Returns a JSON value with a few of its parts replaced, left out, or named otherwise."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.randint(1, most)):
        value = _change(value, draw)
    return value


def _change(value: Any, draw: random.Random) -> Any:
    places = [place for place in _places(value) if place] or [()]
    place = draw.choice(places)
    if not place:
        return copy.deepcopy(draw.choice(VALUES))
    around = value
    for key in place[:-1]:
        around = around[key]
    last, kind = place[-1], draw.randrange(5)
    if kind == 0 and isinstance(around, dict):
        del around[last]
    elif kind == 1 and isinstance(around, dict):
        around[draw.choice(["", "a", f"{last}s", str(last).upper(), "\0"])] = around.pop(last)
    elif kind == 2:
        around[last] = [around[last]]
    else:
        around[last] = copy.deepcopy(draw.choice(VALUES))
    return value


def _places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here]
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:20]))
    for key, inner in items:
        found += _places(inner, (*here, key))
    return found


def written(value: Any, draw: random.Random) -> bytes:
    """Returns a JSON value as bytes; now and then with a fault."""
    raw = json.dumps(value, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    return damaged(raw, draw, 1) if draw.random() < 0.2 else raw
