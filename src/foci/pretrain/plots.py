"""The held-out loss against updates and against seconds, by matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foci.bench.plots import COLOURS, FAINT, RULE


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
    with mpl.rc_context({"svg.hashsalt": "loss", "svg.fonttype": "none", "text.parse_math": False}):
        figure.savefig(folder / "loss.png", metadata={"Software": None}, dpi=160)
        figure.savefig(folder / "loss.svg", metadata={"Date": None, "Creator": None})
    return folder / "loss.svg"


def _plain(axes: Axes, name: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(name, color=FAINT)
