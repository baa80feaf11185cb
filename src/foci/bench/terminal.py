"""The scores of a suite on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foci.bench.markdown import CHOSEN_ON
from foci.report.words import NONE, number

HEADS = ("arm", "learned\n%", "retained\n%", "sum\n%", "sum, from\n{base}", "balanced\n%", "updates")


def print_suite(table: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm at the reported point: means and half of their intervals. The files say more."""
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head in HEADS:
        shown.add_column(head.format(base=table["baseline"] or "plain"), justify="left" if head == "arm" else "right")
    for arm, told in table["arms"].items():
        at = told["chosen"]
        scores = [_share(at[name]) for name in ("learned", "retained", "total")]
        paired = _share(at["total"]["difference"] or {}, sign="+")
        step = number(at["step"].get("mean"))
        row = [arm, *scores, paired, _share(at["balanced"]), NONE if step is None else f"{step:g}"]
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)
    seeds, confidence = len(table["seeds"]), 100 * table["confidence"]
    spread = (
        f"{seeds} seeds, mean and half of the {confidence:.0f} % interval" if seeds > 1 else "one seed, no intervals"
    )
    console.print(Text(f"{spread}; the point is chosen on {CHOSEN_ON[table['chosen_on']]}.", style="dim"))


def _share(mean: Mapping[str, Any], sign: str = "") -> str:
    """A share in per cent with half of its interval: "61.2 ±6.2"."""
    known, high = number(mean.get("mean")), number(mean.get("high"))
    if known is None:
        return NONE
    half = "" if high is None else f" ±{100 * (high - known):.1f}"
    return f"{100 * known:{sign}.1f}{half}"
