"""The figures of a run's report, as SVG inside the page: it opens at once, prints sharp, follows light and dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

from foci.report import style
from foci.report.style import ARM_COLOURS, DASHES, MARKERS, PAGE, page_colour
from foci.report.words import decimal, number, percent

MOST_POINTS = 200

Unit = Literal["percent", "bits", "nats", "distance"]


@dataclass(frozen=True)
class Line:
    """One arm's line: its name, its number among the arms (colour, marker, dash) and its points."""

    name: str
    index: int
    steps: Sequence[float]
    values: Sequence[float]


def line(name: str, index: int, points: Sequence[Mapping[str, Any]], key: str) -> Line:
    """Returns the line of `key` over `step`, without the points that have no number."""
    known = [(float(p["step"]), v) for p in points if (v := number(p.get(key))) is not None]
    return Line(name, index, [s for s, _ in known], [v for _, v in known])


def thin(curve: Line, most: int = MOST_POINTS) -> tuple[Line, int]:
    """Returns a curve of at most `most` points, each the mean of n neighbours; and n."""
    size = -(-len(curve.values) // most)
    if size <= 1:
        return curve, 1
    bins = range(0, len(curve.values), size)
    means = [sum(part) / len(part) for i in bins if (part := curve.values[i : i + size])]
    steps = [sum(part) / len(part) for i in bins if (part := curve.steps[i : i + size])]
    return Line(curve.name, curve.index, steps, means), size


def over_steps(lines: Sequence[Line], unit: Unit, title: str, key: str, marked: bool = True) -> Markup | None:
    """Draws values over steps as SVG, one line per arm; None where no arm has two points."""
    lines = [curve for curve in lines if curve.values]
    if all(len(curve.values) < 2 for curve in lines):
        return None
    tips: dict[str, str] = {}
    figure, axes = canvas()
    for k, curve in enumerate(lines):
        above = _above(k, len(lines)) if marked else 0.0
        axes.plot(curve.steps, curve.values, **stroke(curve.index, above))
        for n, (step, value) in enumerate(zip(curve.steps, curve.values, strict=True)):
            if marked:
                tip = f"{curve.name} · step {step:.0f} · {_said(value, unit)}"
                tips[_point(axes, step, value, curve.index, above, f"p{curve.index}-{n}")] = tip
    _scale(axes.yaxis, unit, [v for curve in lines for v in curve.values])
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.04)
    return inline(figure, title, key, tips)


def learned_against_retained(
    arms: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], by: Literal["step", "at"] = "step"
) -> Markup | None:
    """Draws each arm as a path from the untouched model; None where no arm has two points.

    Points are labelled by step, or by the share of the change (`at`) that training made.
    """
    figure, axes = canvas(left=0.14)
    tips: dict[str, str] = {}
    labels: list[tuple[float, float, str]] = []
    paths: list[list[tuple[float, float]]] = []
    for index, (name, points) in enumerate(arms):
        known = [
            (x, y, str(int(p["step"])) if by == "step" else f"{round(100 * p['at'], 1):g} %")
            for p in points
            if (x := number(p.get("learned_whole"))) is not None and (y := number(p.get("retained_whole"))) is not None
        ]
        above = _above(index, len(arms))
        axes.plot([x for x, _, _ in known], [y for _, y, _ in known], **stroke(index, above))
        for n, (x, y, step) in enumerate(known):
            gid = _point(axes, x, y, index, above, f"p{index}-{n}")
            said = f"learned {percent(x)} %, retained {percent(y)} %"
            tips[gid] = f"{name} · {f'step {step}' if by == 'step' else f'{step} of the change'} · {said}"
        paths.append([(x, y) for x, y, _ in known])
        labels += [(x, y, step) for x, y, step in [*known[:1], *known[:0:-1]]]
    if all(len(known) < 2 for known in paths):
        return None
    _scale(axes.xaxis, "percent", [x for x, _, _ in labels])
    _scale(axes.yaxis, "percent", [y for _, y, _ in labels])
    axes.set_xlabel("learned, % of whole answers")
    axes.set_ylabel("retained, % of what it knew")
    axes.margins(0.08)
    _label(figure, axes, labels, paths)
    title, key = ("step", "path") if by == "step" else ("the share of the change", "slide")
    return inline(figure, f"Learned against retained, one path per arm, points labelled by {title}", key, tips)


def canvas(left: float = 0.105) -> tuple[Figure, Axes]:
    """Returns an empty figure in the look of the page, and its axes."""
    figure = Figure(figsize=(4.8, 3.5), facecolor="none")
    axes = style.framed(figure.add_axes((left, 0.135, 0.985 - left, 0.84), facecolor="none"), PAGE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(PAGE.size)
    return figure, axes


def inline(figure: Figure, title: str, key: str, tips: Mapping[str, str]) -> Markup:
    """Returns the figure as SVG for the page, with own ids (`key`) and `tips` by id."""
    return style.inline(style.svg(figure, key, transparent=True), title, key, tips)


def _above(index: int, lines: int) -> float:
    """Returns the share (0..1) of lines drawn after this one: it is drawn wider, to be seen where they coincide."""
    return (lines - 1 - index) / max(lines - 1, 3)


def stroke(index: int, above: float) -> dict[str, Any]:
    """Returns matplotlib's settings for the line of arm `index`; `above` is the result of `_above`."""
    dash = DASHES[index // ARM_COLOURS % len(DASHES)]
    width = 1.5 + 2.4 * above
    return {"color": page_colour(index), "linewidth": width, "linestyle": dash, "solid_joinstyle": "round"}


def _point(axes: Axes, x: float, y: float, index: int, above: float, gid: str) -> str:
    marker, size = MARKERS[index % len(MARKERS)], 6.5 + 6 * above
    look: dict[str, Any] = {"markeredgecolor": PAGE.paper, "markeredgewidth": 1.0, "markersize": size}
    axes.plot([x], [y], marker=marker, color=page_colour(index), linestyle="none", gid=gid, zorder=3, **look)
    return gid


def _said(value: float, unit: Unit) -> str:
    return f"{percent(value)} %" if unit == "percent" else f"{decimal(value)} {unit}"


def _scale(axis: Any, unit: Unit, values: Sequence[float]) -> None:
    """Ticks in the unit; a flat line gets room above and below instead of a scale that magnifies noise."""
    least = {"percent": 0.1, "bits": 0.02, "nats": 0.1, "distance": 0.1}[unit]
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), (least - (high - low)) / 2)
    axis.axes.set(**{f"{axis.axis_name}lim": (low - room, high + room)})
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if unit == "percent":
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f}" if -0.001 < v < 1.001 else ""))
    else:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


Spot = tuple[float, float]


def _label(
    figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str]], paths: Sequence[Sequence[Spot]]
) -> None:
    """Writes each step beside its point where it touches no line and no other label, or not at all."""
    figure.draw_without_rendering()

    def place(x: float, y: float) -> Spot:
        across, up = axes.transData.transform((x, y)) * 72 / figure.dpi
        return float(across), float(up)

    lines = [[place(x, y) for x, y in path] for path in paths]
    placed: list[Spot] = []
    for x, y, text in dict.fromkeys(labels):
        here = place(x, y)
        for dx, dy in ((0, 11), (0, -11), (12, 0), (-12, 0), (11, 9), (-11, 9), (11, -9), (-11, -9)):
            spot = (here[0] + dx, here[1] + dy)
            free = all(abs(spot[0] - a) > 15 or abs(spot[1] - b) > 10 for a, b in placed)
            if free and all(_gap(spot, a, b) > 7 for path in lines for a, b in pairwise(path)):
                look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": PAGE.ink, "fontsize": 8.5}
                axes.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", **look)
                placed.append(spot)
                break


def _gap(spot: Spot, a: Spot, b: Spot) -> float:
    """Returns the distance of a spot from the line between a and b."""
    along = (b[0] - a[0], b[1] - a[1])
    length = along[0] ** 2 + along[1] ** 2
    dot = (spot[0] - a[0]) * along[0] + (spot[1] - a[1]) * along[1]
    share = min(1.0, max(0.0, dot / length)) if length else 0.0
    return math.hypot(spot[0] - a[0] - share * along[0], spot[1] - a[1] - share * along[1])
