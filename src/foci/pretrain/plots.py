"""Figures of a pretraining: held-out loss over updates, seconds and a grid; the attention of guided heads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from foci.report.guided import drawn
from foci.report.style import COLOURS, FILE, framed, save

LOW_TO_HIGH = LinearSegmentedColormap.from_list("low to high", ["#8fc1e8", "#f6f2ea"])
"""Light enough everywhere for figures in ink."""


def draw(found: Mapping[str, Any], folder: Path) -> Path:
    """Writes loss.svg and loss.png from a table: means over seeds, with their intervals against updates."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained", facecolor=FILE.paper)
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
        framed(axes, x=name)
    left.set_ylabel("held-out loss, nats per predicted token", color=FILE.faint)
    right.legend(frameon=False, fontsize=8)
    return save(figure, folder, "loss")


def draw_heads(arm: str, guided: Sequence[Mapping[str, Any]], maps: Mapping[str, Any], folder: Path) -> None:
    """Writes heads-ARM and maps-ARM of one cell: each guided head's distance from its pattern over updates (one colour
    per pattern), and attention before and after.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", facecolor=FILE.paper)
    axes = figure.add_subplot()
    patterns = sorted({head["pattern"] for head in guided[0]["heads"]})
    for n, head in enumerate(guided[0]["heads"]):
        values = [line["heads"][n]["distance"] for line in guided]
        colour = COLOURS[patterns.index(head["pattern"]) % len(COLOURS)]
        first = head["pattern"] not in {other["pattern"] for other in guided[0]["heads"][:n]}
        label = head["pattern"] if first else None
        axes.plot([line["step"] for line in guided], values, color=colour, linewidth=1, label=label)
    framed(axes, x="updates", y="mean squared distance from the pattern")
    axes.legend(frameon=False, fontsize=8)
    save(figure, folder, f"heads-{arm}")
    pictures = drawn(maps, FILE)
    pictures.set_facecolor(FILE.paper)
    save(pictures, folder, f"maps-{arm}")


def draw_grid(grid: Mapping[str, Any], folder: Path) -> Path:
    """Writes grid.svg and grid.png: a panel per arm, rates along x and warm-ups along y, the last loss in each field;
    an arm with a baseline has the difference from it below.
    """
    points, arms, base = grid["points"], list(grid["arms"]), grid["baseline"]
    rates, warmups = (sorted({point[name] for point in points}) for name in ("learning_rate", "warmup"))
    figure = Figure(figsize=(0.8 + 1.1 * len(rates) * len(arms), 1.2 + 0.75 * len(warmups)), facecolor=FILE.paper)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    means = [point["arms"][arm]["nats"]["mean"] for point in points for arm in arms]
    for axes, arm in zip(panels, arms, strict=True):
        at = {(point["learning_rate"], point["warmup"]): point["arms"][arm]["nats"] for point in points}
        field = [[at[rate, warmup]["mean"] for rate in rates] for warmup in warmups]
        axes.imshow(field, cmap=LOW_TO_HIGH, vmin=min(means), vmax=max(means), aspect="auto")
        for y, warmup in enumerate(warmups):
            for x, rate in enumerate(rates):
                gap = at[rate, warmup]["difference"].get("mean") if arm != base else None
                text = f"{at[rate, warmup]['mean']:.2f}" + ("" if gap is None else f"\n{gap:+.2f}".replace("-", "−"))  # noqa: RUF001
                axes.text(x, y, text, ha="center", va="center", fontsize=9, color=FILE.ink)
        axes.set_title(arm, fontsize=10, color=FILE.ink)
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.set_yticks(range(len(warmups)), [f"{warmup:g}" for warmup in warmups])
        axes.spines[:].set_visible(False)
        axes.tick_params(colors=FILE.faint, labelsize=9, length=0)
        axes.set_xlabel("learning rate", color=FILE.faint)
    panels[0].set_ylabel("warm-up, share of the updates", color=FILE.faint)
    return save(figure, folder, "grid")
