"""Writers: whoever answers the requests of a study, a server or a model on this machine."""

from typing import TYPE_CHECKING

from foci.study.settings import SELF, Settings
from foci.study.writers.writer import Writer

if TYPE_CHECKING:
    from foci.study.writers.local import LocalWriter


def writer_of(settings: Settings) -> Writer:
    """Returns the writer that the settings name. Raises ValueError, with the cure, where it cannot be had."""
    if settings.is_server:
        from foci.study.writers.server import server_of  # noqa: PLC0415 - needs the openai package

        return server_of(settings)
    return local_writer_of(settings)


def local_writer_of(settings: Settings) -> "LocalWriter":
    """Returns the model on this machine that the settings name as the writer."""
    from foci.study.writers.local import LocalWriter  # noqa: PLC0415 - needs torch

    return LocalWriter.of(settings.base if settings.writer == SELF else settings.writer, settings.workers)
