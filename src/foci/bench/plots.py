"""The figures of a suite, by matplotlib: learned against retained, over updates, and along the change."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foci.report.style import COLOURS, DASHES, FILE, MARKERS, framed, save

Table = Mapping[str, Any]
MOST_INSIDE = 8
"""Names, at most, that a legend writes over the figure."""


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the numbers of the points that no other point equals or beats in both directions, by rising x.

    Higher is better in both. Of equal points the first is kept.

    >>> pareto([(0.1, 0.9), (0.5, 0.5), (0.4, 0.4), (0.5, 0.3)])
    [0, 1]
    """
    front: list[int] = []
    for number in sorted(range(len(points)), key=lambda n: (-points[n][0], -points[n][1], n)):
        if not front or points[number][1] > points[front[-1]][1]:
            front.append(number)
    return front[::-1]


def draw(table: Table, folder: Path) -> list[Path]:
    """Writes the figures as SVG and PNG, but not one whose probes were not asked. Returns the SVG files."""
    figures = {
        "learned_against_retained": against(table),
        "learned_over_updates": over_updates(table),
        "along_the_change": along_the_change(table),
        "tokens_along_the_change": along_the_change(table, tokens=True),
    }
    for name, kind in product(figures, ("svg", "png")):
        (folder / f"{name}.{kind}").unlink(missing_ok=True)
    return [save(figure, folder, name) for name, figure in figures.items() if figure is not None]


def against(table: Table) -> Figure | None:
    """Draws each arm's mean path from the untouched model, intervals at the chosen points, and the Pareto front."""
    figure, axes = _figure("learned, % of whole answers", "retained, % of what it knew")
    spots: list[tuple[float, float]] = []
    for number, (arm, told) in enumerate(table["arms"].items()):
        look = _look(number)
        line = [(p["learned_whole"].get("mean"), p["retained_whole"].get("mean")) for p in told["path"]]
        line = [(x, y) for x, y in line if x is not None and y is not None]
        x, y = told["chosen"]["learned_whole"], told["chosen"]["retained_whole"]
        if not line or "mean" not in x or "mean" not in y:
            continue
        axes.plot([100 * a for a, _ in line], [100 * b for _, b in line], **look, markersize=3.5, alpha=0.75)
        spot = (100 * x["mean"], 100 * y["mean"])
        bars = {**look, "linestyle": "none", "markersize": 8, "capsize": 2, "elinewidth": 1}
        axes.errorbar(*spot, xerr=_bar(x), yerr=_bar(y), **bars, label=arm)
        spots.append(spot)
    if not spots:
        return None
    untouched = tuple(100 * table["untouched"][name] for name in ("learned_whole", "retained_whole"))
    axes.plot(*untouched, marker="x", color=FILE.ink, linestyle="none", label="untouched model")
    front = [(x, y) for x, y in ([untouched, *spots][n] for n in pareto([untouched, *spots]))]
    dashed: dict[str, Any] = {"color": FILE.ink, "linewidth": 1, "linestyle": "--", "zorder": 1}
    axes.plot([x for x, _ in front], [y for _, y in front], **dashed, label="Pareto front")
    _legend(figure, axes)
    return figure


def over_updates(table: Table) -> Figure | None:
    """Draws the mean of `learned_whole` over updates; the band is its interval."""
    figure, axes = _figure("updates", "learned, % of whole answers")
    drawn = False
    for number, (arm, told) in enumerate(table["arms"].items()):
        known = [(p["step"], p["learned_whole"]) for p in told["path"] if "mean" in p["learned_whole"]]
        if not known:
            continue
        drawn = True
        steps = [step for step, _ in known]
        axes.plot(steps, [100 * mean["mean"] for _, mean in known], **_look(number), markersize=3.5, label=arm)
        if all(mean["low"] is not None for _, mean in known):
            low, high = ([100 * mean[end] for _, mean in known] for end in ("low", "high"))
            axes.fill_between(steps, low, high, color=COLOURS[number % len(COLOURS)], alpha=0.12, linewidth=0)
    if not drawn:
        return None
    _legend(figure, axes)
    return figure


def along_the_change(table: Table, *, tokens: bool = False) -> Figure | None:
    """Draws every arm's mean curve from the untouched model to the trained one: up and right is better.

    Of answers it is learned against retained; of spans it is the NLL against the bits per byte of prose, both falling.
    `tokens`: of answer tokens in place of whole answers. None where a suite does not ask along the change, where spans
    have no such figure, or no arm has two points.
    """
    slide = table["slide"]
    if slide is None or (tokens and slide["by"] == "nll"):
        return None
    x, y = ("learned", "retained") if tokens else ("learned_whole", "retained_whole")
    x, y, scale = ("learned_nll", "bits_per_byte", 1) if slide["by"] == "nll" else (x, y, 100)
    labels = {
        "learned_whole": "learned, % of whole answers", "retained_whole": "retained, % of what it knew",
        "learned": "learned, % of answer tokens", "retained": "retained, % of the tokens of what it knew",
        "learned_nll": "NLL of what is learned, nats per token (falls to the right)",
        "bits_per_byte": "bits per byte of prose (falls upward)",
    }  # fmt: skip
    figure, axes = _figure(labels[x], labels[y])
    start = None
    for number, (arm, told) in enumerate(slide["arms"].items()):
        spots = [(p[x]["mean"], p[y]["mean"]) for p in told["curve"] if "mean" in p[x] and "mean" in p[y]]
        if len(spots) < 2:
            continue
        start = spots[0][1]
        across, up = ([scale * spot[n] for spot in spots] for n in (0, 1))
        axes.plot(across, up, **_look(number), markersize=3.5, label=arm)
    if start is None:
        return None
    level = start * slide["prose"] if slide["by"] == "nll" else scale * start * slide["keep"]
    axes.axhline(level, color=FILE.ink, linewidth=1, linestyle=":", zorder=1)
    if slide["by"] == "nll":
        axes.invert_xaxis()
        axes.invert_yaxis()
    _legend(figure, axes)
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.6), layout="constrained", facecolor=FILE.paper)
    return figure, framed(figure.add_subplot(), x=x, y=y)


def _legend(figure: Figure, axes: Axes) -> None:
    """Names the arms inside the axes; many of them beside the axes, in a wider figure, where they hide nothing."""
    if len(axes.get_legend_handles_labels()[1]) <= MOST_INSIDE:
        axes.legend(frameon=False, fontsize=8)
        return
    figure.set_figwidth(8.4)
    figure.legend(frameon=False, fontsize=7, loc="outside right upper")


def _look(number: int) -> dict[str, Any]:
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "linestyle": dash}


def _bar(mean: Mapping[str, Any]) -> list[list[float]] | None:
    """Returns how far an interval reaches to both sides of its mean, in per cent."""
    if mean["low"] is None:
        return None
    return [[100 * (mean["mean"] - mean["low"])], [100 * (mean["high"] - mean["mean"])]]
