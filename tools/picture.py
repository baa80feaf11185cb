"""Draws docs/pictures/learned-retained.svg from the numbers in the CSV of the same name. `make picture`."""

import csv
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
COLOURS = {
    "plain": "#1c1b19",
    "ceiling": "#866900",
    "earlier": "#0b6fb3",
    "control": "#57626d",
    "train_attention": "#c2500c",
}
FAINT, RULE = "#625e57", "#e0dcd3"


def points() -> list[dict[str, str]]:
    """Reads the arms with their means and 95 % intervals, in percent."""
    with (PICTURES / "learned-retained.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(path: Path) -> None:
    """Writes the picture as SVG: one point with its two intervals for every arm."""
    with matplotlib.rc_context({"svg.hashsalt": "foci", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        _frame(axes)
        for point in points():
            _arm(axes, point)
        axes.plot(0, 100, marker="*", markersize=11, color=FAINT, linestyle="none")
        axes.annotate("model before training", (0, 100), (9, -4), textcoords="offset points", color=FAINT, fontsize=9)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("learned: answer tokens predicted, % (0 before training)", color=FAINT)
    axes.set_ylabel("retained: answer tokens predicted, %", color=FAINT)
    axes.set(xlim=(-7.5, 42), ylim=(34, 103))


def _arm(axes: Axes, point: dict[str, str]) -> None:
    x, y = float(point["learned"]), float(point["retained"])
    colour = COLOURS[point["family"]]
    wide = [[x - float(point["learned_low"])], [float(point["learned_high"]) - x]]
    tall = [[y - float(point["retained_low"])], [float(point["retained_high"]) - y]]
    axes.errorbar(x, y, xerr=wide, yerr=tall, fmt="o", markersize=5.5, color=colour, elinewidth=0.9, alpha=0.95)
    offset = (float(point["label_x"]), float(point["label_y"]))
    side = "right" if offset[0] < 0 else "center" if offset[0] == 0 else "left"
    axes.annotate(point["label"], (x, y), offset, textcoords="offset points", ha=side, color=colour, fontsize=8.5)


if __name__ == "__main__":
    draw(PICTURES / "learned-retained.svg")
