"""What a meta-training found, on the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def _locality(found: Mapping[str, Any]) -> dict[str, str]:
    if "locality_after_weighed" not in found:
        return {}
    plain, weighed = found["locality_after_plain"], found["locality_after_weighed"]
    return {"moved on other text (nats)": f"{plain:.2e} by a plain step, {weighed:.2e} by the weigher's"}


def print_meta(found: Mapping[str, Any], weigher: Path, console: Console) -> None:
    """Prints the summary of a meta-training and where the weigher is."""
    table = Table(box=None, show_header=False)
    for name, value in {
        "later loss (nats)": f"{found['later_nll_before']:.3f} before a step on the document",
        "": f"{found['later_nll_after_plain']:.3f} after a plain one",
        " ": f"{found['later_nll_after_weighed']:.3f} after one by the weigher",
        **_locality(found),
        "answer in the top 5 %": "unknown" if (hits := found["answer_in_top_5_percent"]) is None else f"{hits:.0%}",
        "seconds": f"{found['seconds']['influence']:.0f} + {found['seconds']['weigher']:.0f}",
    }.items():
        table.add_row(name, value)
    console.print(table, highlight=False)
    console.print(f"weigher: {weigher}", highlight=False, markup=False, soft_wrap=True)
