"""The experiment trackers that a run may log to, and the packages that they need. Imports none of them."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal

Tracker = Literal["trackio", "tensorboard", "wandb", "mlflow", "swanlab"]
"""A tracker, by the name that Transformers has for it."""

_MODULES: dict[str, tuple[str, ...]] = {"tensorboard": ("tensorboard", "tensorboardX")}
"""Modules of which one must be there, where they are not the tracker's own name."""


def as_trackers(value: object) -> object:
    """Returns one or several names as a tuple without repetitions, "none" as no name, other values as they are."""
    if isinstance(value, str):
        value = [] if value == "none" else [value]
    return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


def check_trackers(names: Iterable[str]) -> None:
    """Raises ValueError, which names the package, for a tracker that is not installed."""
    for name in names:
        modules = _MODULES.get(name, (name,))
        if not any(find_spec(module) for module in modules):
            raise ValueError(
                f"train.report_to names {name}, expected the package {' or '.join(modules)}, which is not installed; "
                f"install it with: pip install {modules[0]}, or leave {name} out of train.report_to"
            )
