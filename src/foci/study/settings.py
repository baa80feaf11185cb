"""The settings of `foci study`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foci.config.run import Run

SELF = "self"
"""The writer that is the model of the run."""


@dataclass(frozen=True)
class Settings:
    """The inputs and limits of one study.

    `writer` is `self`, a folder, a hub id or the address of a server; `model` names the server's model. `base` is the
    model that learns. `questions` and `rewrites` count per passage, `words` is the length of a passage, `limit` the
    most passages that are asked about. `price_in` and `price_out` are money for a million tokens. `timeout` is in
    seconds without a word of the server, in one attempt of a request; there are `retries` + 1. `by` says what a
    request for questions is about; None: a passage, or of a small writer a sentence.
    """

    corpus: tuple[str, ...]
    writer: str
    out: Path | None = None
    base: str = "smollm2-135m"
    model: str | None = None
    questions: int = 5
    rewrites: int = 2
    workers: int = 4
    limit: int | None = None
    words: int = 160
    held_out: float = 0.2
    seed: int = 0
    price_in: float | None = None
    price_out: float | None = None
    timeout: float = 600.0
    retries: int = 4
    text_field: str = "text"
    by: Literal["passage", "sentence"] | None = None

    def __post_init__(self) -> None:
        for name, least in (("questions", 1), ("rewrites", 0), ("workers", 1), ("limit", 1), ("words", 20)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name}: expected at least {least}, got {value}")
        if self.by not in (None, "passage", "sentence"):
            raise ValueError(f"--by: expected passage or sentence, got {self.by!r}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"--held-out: expected a share of the facts from 0 to below 1, got {self.held_out:g}")
        if not 0 < self.timeout < float("inf") or self.retries < 0:
            raise ValueError(
                f"--timeout: expected seconds above 0 and at least 0 retries, got {self.timeout:g} and {self.retries}"
            )
        for flag, price in (("--price-in", self.price_in), ("--price-out", self.price_out)):
            if price is not None and not 0 <= price < float("inf"):
                raise ValueError(f"{flag}: expected money for a million tokens, at least 0, got {price:g}")

    @property
    def is_server(self) -> bool:
        """Whether the writer is a server."""
        return self.writer.startswith(("http://", "https://"))

    @property
    def folder(self) -> Path:
        """The folder of the suite: `out`, or out/<name of the corpus>-study."""
        return self.out or Path("out") / f"{Run.of_flags(self.corpus).output.name}-study"
