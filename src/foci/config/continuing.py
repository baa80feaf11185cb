"""The run file's `continues`: the finished run whose trained model goes on learning. Imports no torch."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from foci.config.adapter import Section
from foci.config.values import expand_home


class Continues(Section):
    """A finished run that this one goes on from: its model goes on learning, its rows are rehearsed, its probes asked.

    Model and adapter must be those of that run. Raises ValueError for a ratio below 0.
    """

    run: Annotated[str, BeforeValidator(expand_home), Field(min_length=1)] = Field(
        description="folder of the finished run to go on from"
    )
    arm: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="arm of that run; null = the one that learned and retained the most"
    )
    ratio: float = Field(
        default=1.0, ge=0, description="rows of all earlier pages that are rehearsed, per new row; 0 = none"
    )
