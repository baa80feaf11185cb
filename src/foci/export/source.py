"""Finds in a run's folder what is exported: a finished arm, its model or adapter, its questions and its answers."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foci.card.base import Base, base_named
from foci.card.taught import Taught, read_taught
from foci.card.write import safe_name
from foci.config.run import Run
from foci.learn.chosen import Chosen, choose
from foci.learn.finished import probes_of
from foci.models.loading import base_of_adapter, is_adapter
from foci.models.locate import folder_of
from foci.probes import Answer, Probe, counted_by, read_answers
from foci.system.run_folder import ArmFolder, RunFolder


@dataclass(frozen=True)
class Source:
    """A finished arm of a run.

    `before` and `after` are the answers of the untouched and of the trained model to `probes`; all three are empty
    where the run asks nothing.
    """

    chosen: Chosen
    folder: ArmFolder
    probes: Sequence[Probe]
    before: Sequence[Answer]
    after: Sequence[Answer]

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.chosen.folder

    @property
    def run(self) -> Run:
        """The run."""
        return self.chosen.run

    @property
    def arm(self) -> str:
        """The arm's name."""
        return self.chosen.arm

    @property
    def weights_sha256(self) -> str:
        """The hash, or hashes, of the weights that were trained."""
        return str(self.chosen.result.get("weights_sha256"))

    @property
    def name(self) -> str:
        """A name for files and for other programs: run and arm, in letters that all of them take."""
        return safe_name(f"{self.run.name}-{self.arm}")

    @property
    def trust(self) -> bool:
        """Whether code of the model's own may run."""
        return self.run.model.trust_remote_code

    def base(self) -> Base:
        """Returns what others call the model that the run began with."""
        return base_named(self.run.model.name, self.run.model.bits)

    def base_place(self) -> str:
        """Returns what other programs load the base model by: its name on the hub, or its full path."""
        base = self.base()
        return base.name if base.on_hub else str(Path(self.run.model.name).expanduser().resolve())

    def base_folder(self) -> Path:
        """Returns the folder of the base model's weights; where the base is an adapter, of the model below it."""
        name = self.run.model.name
        folder = folder_of(name, trust_remote_code=self.trust)
        while is_adapter(folder):
            folder, name = base_of_adapter(folder, name, self.trust)
        return folder

    def taught(self) -> Taught:
        """Returns what a card says of the arm. Raises ValueError where its numbers are not in summary.json."""
        found = read_taught(self.path)
        if self.arm not in found:
            raise ValueError(
                f"{self.path} has no numbers of the arm {self.arm} in summary.json; write them with: foci learn "
                f"{shlex.quote(str(self.path))} --resume"
            )
        return found[self.arm]

    def command(self, flags: str = "") -> str:
        """Returns the command that exports this arm, with other flags."""
        said = shlex.join(["foci", "export", str(self.path), "--arm", self.arm])
        return f"{said} {flags}".rstrip()


def source_of(path: Path, arm: str | None = None) -> Source:
    """Reads a run's folder. `arm` None: the arm that learned and retained the most.

    Raises FileNotFoundError and ValueError as `foci.learn.chosen.choose` does.
    """
    chosen = choose(path, arm)
    folders, result = RunFolder(path, len(chosen.run.arms)), chosen.result
    folder = folders.arm(chosen.arm)
    step = int((result.get("kept") or {}).get("step", result["steps"]))
    probes = probes_of(folders.questions)
    before = read_answers(folders.baseline / "probes.parquet") if probes else []
    after = counted_by(before, read_answers(folder.probes(step))) if probes else []
    return Source(chosen, folder, probes, before, after)
