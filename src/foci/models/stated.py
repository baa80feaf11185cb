"""Refuses what a model's configuration may not say: names of code that Transformers would fetch and run.

`auto_map` is asked about by `trust_remote_code`; docs/reliability.md lists what else a configuration may say.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
"""Keys that say how a model computes; a value "ORGANISATION/NAME" would fetch a kernel from the hub."""


def check_stated(config: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError where a configuration, or a part of it, names code to fetch."""
    for key, value in config.items():
        bare = key.strip("_").removesuffix("_internal")
        if bare in IMPLEMENTATIONS and any("/" in str(name) for name in _names(value)):
            raise ValueError(
                f"{path} names code to fetch and run ({key}: {str(value)[:60]}); foci fetches nothing because a file "
                f"names it: take {key} out of the file, which changes the speed alone"
            )
        if isinstance(value, Mapping):
            check_stated(value, path)


def _names(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else [value]
