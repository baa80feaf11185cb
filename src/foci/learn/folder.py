"""Opens the folder of a run."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from foci.config.run import Run, dump_run
from foci.system import processes
from foci.system.files import write_text
from foci.system.folder import claim
from foci.system.run_folder import RUN, RunFolder


@contextmanager
def opened(run: Run, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Opens the run's folder, a new one or its own, and writes run.yaml. Raises FileExistsError as `claim` does.

    Of several processes the first does so. Raises FileNotFoundError where another one does not see the folder.
    """
    folder = RunFolder(run.output, len(run.arms))
    claimed = partial(_claimed, run, folder, resume=resume, overwrite=overwrite)
    with processes.opened_by_first(claimed, folder.config):
        yield folder


@contextmanager
def _claimed(run: Run, folder: RunFolder, *, resume: bool, overwrite: bool) -> Iterator[None]:
    with claim(run.output, RUN, dump_run(run), resume=resume, overwrite=overwrite):
        write_text(folder.config, dump_run(run))
        yield


def has_settings(config: Path, run: Run) -> bool:
    """Returns whether a run.yaml is one that foci wrote for a run with these settings, today or in an earlier version.

    A short run file of a person's own is none, though its settings be the same: its folder may hold other files.
    """
    known = ""
    with suppress(ValueError, OSError):
        known = config.read_text(encoding="utf-8")
    return RUN.same(known, dump_run(run))
