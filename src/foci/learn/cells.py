"""The cells (an arm with a seed) of `foci bench` and `foci pretrain`. Imports no torch."""

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from foci.errors import shown


def as_tuple(value: object) -> object:
    """Returns a list of a YAML file as a tuple. Raises ValueError, with the cure, for what is no list."""
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    cure = f"[{value}]" if is_number else "a list such as [1, 0.5]"
    raise ValueError(f"expected a list of numbers, got {shown(value)}; write {cure}")


def all_different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the values. Raises ValueError where one of them stands twice."""
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"every value stands once, got {twice[0]} twice; leave one out")
    return values


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(as_tuple), Field(min_length=1), AfterValidator(all_different)]
"""The seeds of a file, all different."""


@dataclass(frozen=True)
class ArmSeed(ABC):
    """One arm trained with one seed, in a folder of its own. A finished one is never trained again."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Returns the cell's name for people: "plain, seed 0"."""
        return f"{self.arm}, seed {self.seed}"

    @property
    @abstractmethod
    def path(self) -> Path:
        """Returns the cell's folder."""

    @abstractmethod
    def differs(self) -> str:
        """Returns the settings in which the folder's cell differs from this one, in words; "" where there are none."""

    def check(self) -> None:
        """Raises FileExistsError where the folder holds a cell that was trained with other settings."""
        if different := self.differs():
            raise FileExistsError(
                f"cell {self.name} in {self.path} was run with {different}; name another output, or run such cells "
                "again with --overwrite"
            )

    def forget(self) -> bool:
        """Deletes the folder where it holds a cell of other settings. Returns whether it did."""
        if not self.differs():
            return False
        old = self.path.with_name(f".{self.path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        self.path.rename(old)  # at once, so that a kill in the middle leaves no half of a cell
        shutil.rmtree(old)
        return True


def cell_path(output: Path, arm: str, seed: int) -> Path:
    """Returns the folder of an arm and a seed below the output folder."""
    return output / "cells" / arm / f"seed-{seed}"
