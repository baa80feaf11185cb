"""The folder of a suite: the path of each file, and the files that the suite was begun with.

    suite.yaml  files.json          the resolved suite; SHA-256 of the files it reads
    start/seed-0/                   rows, questions and the frozen baseline that all cells of a seed share
    matched/<arm>/seed-0/           what was computed to match an arm, where it is not matched by steps
    cells/<arm>/seed-0/             one run of `foci learn`
    table.md  table.json  report.html  *.svg  *.png

Everything but the cells is small; a cell keeps its model only where the suite says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from foci.bench.config import Suite
from foci.config import strict_yaml
from foci.learn.cells import cell_path
from foci.learn.inputs import files_of_methods, files_read
from foci.system import processes
from foci.system.files import read_json, sha256, write_json, write_text
from foci.system.folder import FolderKind, claim

SUITE = FolderKind("suite", "suite.yaml")


class SuiteFolder:
    """The paths of a suite's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "suite.yaml"
        self.files = path / "files.json"
        self.table = path / "table.json"
        self.markdown = path / "table.md"
        self.report = path / "report.html"

    def start(self, seed: int) -> Path:
        """Returns the folder that the cells of a seed share."""
        return self.path / "start" / f"seed-{seed}"

    def cell(self, arm: str, seed: int) -> Path:
        """Returns the folder of the run of an arm and a seed."""
        return cell_path(self.path, arm, seed)

    def matched(self, arm: str, seed: int) -> Path:
        """Returns the folder of what was computed to match an arm."""
        return self.path / "matched" / arm / f"seed-{seed}"


@contextmanager
def opened_suite(suite: Suite) -> Iterator[SuiteFolder]:
    """Opens the suite's folder, a new one or its own, and writes suite.yaml. Raises FileExistsError as `claim` does.

    Of several processes the first does so. Raises FileNotFoundError where another one does not see the folder.
    """
    folder = SuiteFolder(suite.output)
    with processes.opened_by_first(partial(_claimed, suite, folder), folder.config):
        yield folder


@contextmanager
def _claimed(suite: Suite, folder: SuiteFolder) -> Iterator[None]:
    with claim(folder.path, SUITE):
        write_text(folder.config, strict_yaml.dump(suite.model_dump(mode="json")))
        yield


def changed_files(suite: Suite, folder: SuiteFolder) -> list[str]:
    """Returns the files that changed since the suite began; files that are new to it are noted as they are now."""
    known: dict[str, str] = read_json(folder.files) or {}
    now = {str(path): sha256(path) for path in _read_by(suite)}
    changed = [name for name, digest in now.items() if known.get(name, digest) != digest]
    write_json(folder.files, {**now, **known})
    return changed


def forget_files(folder: SuiteFolder) -> None:
    """Forgets the files that the suite began with, so that they are noted anew."""
    folder.files.unlink(missing_ok=True)


def _read_by(suite: Suite) -> list[Path]:
    """Returns the files of the corpus and the probes, and those that a method's settings name."""
    found = (*files_read(suite), *files_of_methods(suite.arms))
    return list(dict.fromkeys(path for path in found if path.is_file()))
