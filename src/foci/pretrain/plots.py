"""The held-out loss against updates and seconds, and what guided heads look at, by matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foci.bench.plots import COLOURS, FAINT, INK, RULE
from foci.report.guided import drawn


def draw(found: Mapping[str, Any], folder: Path) -> Path:
    """Writes loss.svg and loss.png from a table: means over seeds, with their intervals against updates."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, (arm, of) in enumerate(found["arms"].items()):
        curve = [point for point in of["curve"] if point["step"] > 0]
        colour = COLOURS[number % len(COLOURS)]
        nats = [point["nats"]["mean"] for point in curve]
        left.plot([point["step"] for point in curve], nats, color=colour, label=arm)
        right.plot([point["seconds"] for point in curve], nats, color=colour, label=arm)
        if curve and all(point["nats"]["low"] is not None for point in curve):
            low, high = ([point["nats"][end] for point in curve] for end in ("low", "high"))
            left.fill_between([point["step"] for point in curve], low, high, color=colour, alpha=0.12, linewidth=0)
    for axes, name in ((left, "updates"), (right, "seconds of training")):
        _plain(axes, name)
    left.set_ylabel("held-out loss, nats per predicted token", color=FAINT)
    right.legend(frameon=False, fontsize=8)
    _save(figure, folder, "loss")
    return folder / "loss.svg"


def draw_heads(arm: str, guided: Sequence[Mapping[str, Any]], maps: Mapping[str, Any], folder: Path) -> None:
    """Writes heads-ARM and maps-ARM of one cell: each guided head's distance from its pattern over updates (one colour
    per pattern), and attention before and after.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    patterns = sorted({head["pattern"] for head in guided[0]["heads"]})
    for n, head in enumerate(guided[0]["heads"]):
        values = [line["heads"][n]["distance"] for line in guided]
        colour = COLOURS[patterns.index(head["pattern"]) % len(COLOURS)]
        first = head["pattern"] not in {other["pattern"] for other in guided[0]["heads"][:n]}
        label = head["pattern"] if first else None
        axes.plot([line["step"] for line in guided], values, color=colour, linewidth=1, label=label)
    _plain(axes, "updates")
    axes.set_ylabel("mean squared distance from the pattern", color=FAINT)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, folder, f"heads-{arm}")
    pictures = drawn(maps, INK, RULE)
    pictures.set_facecolor("white")
    _save(pictures, folder, f"maps-{arm}")


def _save(figure: Figure, folder: Path, name: str) -> None:
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "text.parse_math": False}):
        figure.savefig(folder / f"{name}.png", metadata={"Software": None}, dpi=160)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _plain(axes: Axes, name: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(name, color=FAINT)
