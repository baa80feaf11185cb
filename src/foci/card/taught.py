"""Reads from a run's folder what a card says of one arm."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foci.card.base import Base, base_named
from foci.config.run import Run, load_run
from foci.report.read import Arm, read_run
from foci.report.tables import Code, marked
from foci.report.words import count
from foci.system.files import read_json
from foci.system.harmless import visible
from foci.system.words import form


@dataclass(frozen=True)
class Taught:
    """A finished arm of a run, as a card tells of it.

    `files` are names, without folders, and SHA-256 of the files that the run read. `fingerprint` identifies the base
    model's configuration and weights. `facts` are those of `foci.report.read.Run`.
    """

    run: Run
    arm: Arm
    base: Base
    files: list[tuple[str, str]]
    fingerprint: str
    facts: dict[str, Any]

    @property
    def title(self) -> str:
        """The names of run and arm."""
        return visible(f"{self.run.name}, {self.arm.name}")

    @property
    def before(self) -> str:
        """The model that the numbers before training are of: the untouched one, or that which the run went on from."""
        went_on = self.facts.get("went_on")
        return f"the model of {marked(Code(str(went_on.get('name'))))}" if went_on else "the untouched model"

    def counts(self) -> str:
        """Returns the documents, rows and tokens of the corpus and the updates, in words."""
        corpus, numbers = self.facts["corpus"], self.arm.numbers
        found = {name: corpus.get(name) for name in ("documents", "rows", "tokens")}
        said = [f"{count(value)} {name}" for name, value in found.items() if value is not None]
        return ", ".join(
            [
                *said,
                f"{count(numbers.get('steps'))} {form(numbers.get('steps') or 0, 'update')}, seed {self.facts['seed']}",
            ]
        )


def read_taught(folder: Path) -> dict[str, Taught]:
    """Returns the finished arms of a run's folder by name. Raises ValueError, FileNotFoundError as its readers do."""
    run, report = load_run(folder), read_run(folder)
    start = read_json(folder / "start.json") or {}
    files = [(Path(name).name, str(digest)) for name, digest in (start.get("inputs") or {}).items()]
    base = base_named(run.model.name, run.model.bits)
    known = {arm.name: arm for arm in report.arms if "weights_sha256" in arm.numbers}
    done = {name: known[visible(name)] for name in run.arms if visible(name) in known}
    return {
        name: Taught(run, arm, base, files, str(start.get("model", "")), report.facts) for name, arm in done.items()
    }
