"""Colours and the frame of every figure."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0b6fb3", "#c2500c", "#007f5c", "#a5478b", "#866900", "#57626d", "#b3243c", "#3d3d9e")


INK, FAINT, RULE = "#1c1b19", "#625e57", "#e0dcd3"


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, color=FAINT)
    axes.set_ylabel(y, color=FAINT)
    return figure, axes
