"""Attention of a corpus, computed once and kept in shards; the model is loaded only when something is missing.

A folder of kept attention says which model made it, by fingerprint, and how that model's files looked then. Where they
look the same, or are not on this machine at all (the corpus was scored elsewhere), the model is not loaded to read what
it made.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foci import models
from foci.corpus import tokenizer_fingerprint
from foci.corpus.shards import Shards
from foci.corpus.store import rows_key
from foci.focus import Context, Row
from foci.methods.contrast.corpus_attention import AttentionQuery, answers_key, attention_received
from foci.methods.contrast.premise import premise
from foci.models.locate import folder_of
from foci.system.cache import kept
from foci.system.files import read_json, read_lines, write_json, write_lines

NOTE = "model.json"


@dataclass(frozen=True)
class CachedAttention:
    """The attention that the rows of `context` receive in the model `name` (None: the one that learns).

    It is kept in a folder within `root`. `dtype` is what the model computes in, as `model.dtype` says it.
    """

    name: str | None
    query: AttentionQuery
    dtype: str
    root: Path
    context: Context

    def column(self) -> list[tuple[int | float, ...]]:
        """Returns the attention received by every token of every row, in order; what is missing is computed.

        Raises ValueError where it was kept for another model, other rows or other settings.
        """
        found = self.shards.column_of(self._compute)
        self._note()
        return found

    def fill(self, number: int, count: int) -> Iterator[tuple[int, float]]:
        """Computes the shards of part `number` of `count`; yields tokens and seconds after each."""
        if self.shards.complete():
            return
        yield from self.shards.fill(self._compute, number, count)
        if self.shards.complete():
            self._note()

    def premise(self) -> list[dict[str, Any]]:
        """Measures `foci.methods.contrast.premise` once, and keeps it."""

        def write(lines: list[dict[str, Any]], path: Path) -> None:
            write_lines(path, lines)

        key = {**self.shards.key, "rows": rows_key(self.context.rows)}
        return kept(self.folder / "premise.jsonl", key, self._premise, write, read_lines)

    @cached_property
    def folder(self) -> Path:
        """Returns the folder that keeps it: one for each model and query."""
        mark = hashlib.sha256(f"{self.name} {self.query.key} {self.dtype}".encode()).hexdigest()[:8]
        place = re.sub(r"[^A-Za-z0-9._]+", "-", self.name or "learner").strip("-.")[-60:]
        return self.root / f"{place}-{mark}"

    @cached_property
    def loaded(self) -> models.Loaded:
        """Loads the model."""
        if self.name is not None:
            return models.load(self.name, dtype=self.dtype, device=str(self.context.model.device))
        model: Any = self.context.model
        dtype = models.compute_dtype(self.dtype, model.device.type)
        tokenizer: Any = self.context.tokenizer
        return models.Loaded(model, tokenizer, "learner", models.fingerprint(model), models.max_length(model), dtype)

    @cached_property
    def shards(self) -> Shards:
        """Returns the attention in shards, under a key that says what it depends on."""
        bare = Shards(self.folder, {}, "attention", self.context.rows)
        note = read_json(self.folder / NOTE)
        known = note is not None and bare.complete() and self._stamp in (None, note["files"])
        return Shards(
            self.folder,
            {
                "model": self.name or "learner",
                "fingerprint": note["fingerprint"] if known else self.loaded.fingerprint,
                "dtype": self.dtype,
                "tokenizer": tokenizer_fingerprint(self.context.tokenizer),
                "look": self.query.key,
                "answers": answers_key(self.context.rows) if self.query.queries == "answers" else "",
            },
            "attention",
            self.context.rows,
        )

    def _compute(self, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        tokenizer: Any = self.context.tokenizer
        return attention_received(self.loaded, rows, tokenizer, self.query)

    def _premise(self) -> list[dict[str, Any]]:
        tokenizer: Any = self.context.tokenizer
        return premise(self.loaded, self.context.rows, tokenizer, self.query)

    def _note(self) -> None:
        """Writes the model's fingerprint and the state of its files beside its attention."""
        note = {"fingerprint": self.shards.key["fingerprint"], "files": self._stamp}
        if self._stamp is not None and read_json(self.folder / NOTE) != note:
            write_json(self.folder / NOTE, note)

    @cached_property
    def _stamp(self) -> str | None:
        """Returns a hash of the names, sizes and times of the model's files; None where they are not here."""
        if self.name is None:
            return self.loaded.fingerprint
        try:
            folder = folder_of(self.name)
        except ValueError:  # said again by `loaded`, should the model be needed
            return None
        files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
        stamps = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
        return hashlib.sha256(" ".join(stamps).encode()).hexdigest()[:16]
