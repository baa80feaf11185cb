"""Opens the folder of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from foci.config.run import Run, dump_run
from foci.system.files import write_text
from foci.system.folder import claim
from foci.system.run_folder import RUN, RunFolder


@contextmanager
def opened(run: Run, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Opens the run's folder, a new one or its own, and writes run.yaml. Raises FileExistsError as `claim` does."""
    settings = dump_run(run)
    with claim(run.output, RUN, settings, resume=resume, overwrite=overwrite):
        folder = RunFolder(run.output, len(run.arms))
        write_text(folder.config, settings)
        yield folder
