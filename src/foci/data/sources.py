"""The published files that converters read: where each comes from, under what licence, and its checksum.

foci ships none of them. A file of another SHA-256 than the one a converter was tested on is used and told.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foci.system.texts import NotText, decoded

TAALM = "https://github.com/ybseo-academy/TAALM (commit b12f344), folder"
ECBD = "https://github.com/yasumasaonoe/entity_knowledge_propagation (commit 938295c), folder data/ecbd"
DKN = "https://github.com/heng840/DKN (commit 615ec21), folder datasets/Templama"
CONTRAST = "https://github.com/tsinghua-msiip/contrasting_attention (commit 283ad69), folder data"
NONE = "none declared"
LAMA = "none declared; derived from LAMA, CC BY-NC 4.0"


@dataclass(frozen=True)
class Source:
    """A published file: its name, where it is published, its licence, and the SHA-256 a converter was tested on."""

    name: str
    published: str
    licence: str
    sha256: str


@dataclass(frozen=True)
class Used:
    """A file as it was read. `tested` says that its bytes are those the converter was tested on."""

    file: str
    bytes: int
    sha256: str
    tested: bool
    published: str | None = None
    licence: str | None = None


SOURCES: Mapping[str, tuple[Source, ...]] = {
    "lama-ckl": (
        Source(
            "variant.jsonl", f"{TAALM} data/LAMA_ckl", LAMA,
            "03b6c60d4642ec3ee2af3e7e0a2c4ed24bbb1fae7d63c5b205e6b12da1056248",
        ),
        Source(
            "invariant_descriptive.jsonl", f"{TAALM} data/LAMA_ckl", LAMA,
            "c0b1925b92ff4050fac269e78ae11d806b9b3400e8770bad476c9be599b2a82d",
        ),
        Source(
            "invariant_schematic.jsonl", f"{TAALM} data/LAMA_ckl", LAMA,
            "236ed1d27269a0d9359a89c8ca4f9a8c8401362ecaee8f60eb5590ec958d4cd7",
        ),
    ),
    "temporalwiki": (
        Source(
            "0901-1001_changed.jsonl", f"{TAALM} data/TemporalWiki/eval", NONE,
            "b5899036092c6ff000364c7df8a5fd6665f9f24c92af674f31610579237bbfb3",
        ),
        Source(
            "0901-1001_unchanged.jsonl", f"{TAALM} data/TemporalWiki/eval", NONE,
            "65adcc45bc7300c3b8ad887b59d2ad1693be64cbdc8388a32e3c485ddc64f8ce",
        ),
    ),
    "templama": (
        Source(
            "train.jsonl", DKN, "none declared; TempLAMA's code is Apache-2.0",
            "00f4028e0f0367317d6ad801e48529f48cd322a328d0b32138a63c1669fb6d74",
        ),
    ),
    "ecbd": (
        Source(
            "all_ent_2020_2021_np_500samples.json", ECBD, NONE,
            "53b9fd9ea124c17fe524838240f5513fcd3662f08f438f21704940c0e491a24a",
        ),
        Source(
            "all_ent_2020_2021_random_500samples.json", ECBD, NONE,
            "167c9cbf071a492581b14c0b15745f74833546d9ac266a03a5eaf04edda26dd8",
        ),
    ),
    "published-biographies": (
        Source(
            "biography_synthetic.csv", CONTRAST, NONE,
            "4054d26ff58fdd9c5bd126cd65563f987178db2d2a486b79720a7e3de66561db",
        ),
        Source(
            "biography_real.csv", CONTRAST, NONE,
            "ca3a5aad6656b10ce530d144c68d6883cc21b44416a0ca9cdf40e2edd62179c4",
        ),
        Source(
            "prompts.csv", CONTRAST, NONE,
            "757ab91a8a3e89108ffd2f4c9594f0bd3a641c88a0e1b8dcdcaade58f55821c3",
        ),
    ),
}  # fmt: skip
"""By suite, the files its converter was tested on."""


def located(suite: str, path: Path, name: str | None = None) -> Path:
    """The file itself: `path`, or `name` (default: the suite's first file) in the folder `path`.

    Raises FileNotFoundError that says where the file is published and under what licence.
    """
    path = Path(path).expanduser()
    file = path / (name or SOURCES[suite][0].name) if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(_missing(suite, file))
    return file


def used(suite: str, file: Path) -> Used:
    """Size and checksum of a file, and whether they are those of a file that the converter was tested on."""
    raw = file.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    known = next((source for source in SOURCES[suite] if source.sha256 == digest), None)
    known_name = known or next((source for source in SOURCES[suite] if source.name == file.name), None)
    published = (known_name.published, known_name.licence) if known_name else (None, None)
    return Used(file.name, len(raw), digest, known is not None, *published)


def read_text(suite: str, file: Path) -> str:
    """The file's text, UTF-8 with or without a byte-order mark. Raises ValueError for anything else."""
    try:
        return decoded(file.read_bytes())
    except NotText as error:
        raise ValueError(f"{file} is {error}; the file is published at {_from(suite, file)}") from None


def read_records(suite: str, file: Path, keys: Mapping[str, type]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line from 1, record) of JSON objects, one a line, or of one JSON list of objects (the place in it from 1).

    Every record must have `keys` with values of these types. Raises ValueError with file and line.
    """
    for number, record in _parsed(suite, file):
        place = f"{file}:{number}"
        if not isinstance(record, dict):
            raise ValueError(f"{place}: expected a JSON object, got {str(record)[:60]!r}")  # noqa: TRY004 - the file's fault
        for key, kind in keys.items():
            if not isinstance(record.get(key), kind):
                got = "no such key" if key not in record else repr(record[key])[:60]
                raise ValueError(  # noqa: TRY004 - the file's fault
                    f"{place}: expected {key!r} as {kind.__name__}, got {got} (keys: {', '.join(record)}); "
                    f"{suite} reads the files of {_from(suite, file)}"
                )
        yield number, record


def _parsed(suite: str, file: Path) -> Iterator[tuple[int, Any]]:
    text = read_text(suite, file)
    whole = text.lstrip().startswith("[")
    try:
        if whole:
            yield from enumerate(json.loads(text), start=1)
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, json.loads(line)
    except json.JSONDecodeError as error:
        place = file if whole else f"{file}:{number}"
        raise ValueError(f"{place}: broken JSON ({error}); get the file again from {_from(suite, file)}") from None


def _source(suite: str, file: Path) -> Source:
    return next((source for source in SOURCES[suite] if source.name == file.name), SOURCES[suite][0])


def _from(suite: str, file: Path) -> str:
    return _source(suite, file).published


def _missing(suite: str, file: Path) -> str:
    source = _source(suite, file)
    names = ", ".join(s.name for s in SOURCES[suite] if s.published == source.published)
    return (
        f"{suite}: no file {file}. foci does not ship it; it is published at {source.published} "
        f"({names}; licence: {source.licence}). Download it, then: foci data {suite} FOLDER"
    )
