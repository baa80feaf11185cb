"""Figures of guided heads: their distance from their patterns over steps, and attention maps before and after."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from foci.report import plots
from foci.report.style import PAGE, Look
from foci.report.words import number

NOTE = (
    "The mean over queries of the squared distance of a head's attention from its pattern, on a few rows of the "
    "corpus; 0 is the pattern itself. Heads of one pattern have one colour."
)
MAPS = "Attention of guided heads on the beginning of a row: queries downwards, keys to the right; darker = more."


def figures(name: str, index: int, guided: Sequence[Mapping[str, Any]], maps: Any) -> list[dict[str, Any]]:
    """Returns the figures of one arm (`title`, `note`, `svg`); none where it guided no head or nothing was written."""
    found = [{"title": f"Distance of guided heads, {name}", "note": NOTE, "svg": over_steps(index, guided)}]
    if isinstance(maps, Mapping) and {"before", "after"} <= set(maps):
        found.append({"title": f"Guided heads, {name}", "note": MAPS, "svg": before_and_after(index, maps)})
    return [figure for figure in found if figure["svg"] is not None]


def over_steps(index: int, guided: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draws one line per head over steps, coloured by pattern; None where no head has two points."""
    heads: dict[tuple[int, int, str], tuple[list[float], list[float]]] = {}
    for point in guided:
        for head in point.get("heads") or []:
            value, step = number(head.get("distance")), number(point.get("step"))
            if value is not None and step is not None:
                steps, values = heads.setdefault((head["layer"], head["head"], head["pattern"]), ([], []))
                steps.append(step)
                values.append(value)
    patterns = sorted({pattern for _, _, pattern in heads})
    lines = [
        plots.Line(f"layer {layer}, head {head}: {pattern}", patterns.index(pattern), steps, values)
        for (layer, head, pattern), (steps, values) in sorted(heads.items())
    ]
    return plots.over_steps(lines, "distance", "Distance of guided heads", f"guided-{index}") if lines else None


def before_and_after(index: int, maps: Mapping[str, Any]) -> Markup:
    """Returns the maps as SVG for the page."""
    figure = drawn(maps, PAGE)
    return plots.inline(figure, "Attention maps of guided heads before and after", f"maps-{index}", {})


def drawn(maps: Mapping[str, Any], look: Look) -> Figure:
    """Draws a column per head: its map before training above, after training below."""
    pairs = list(zip(maps["before"]["maps"], maps["after"]["maps"], strict=True))
    figure = Figure(figsize=(1.3 * len(pairs), 3.1), facecolor="none", layout="constrained")
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for column, pair in enumerate(pairs):
        for row, head in enumerate(pair):
            spot = axes[row][column]
            spot.imshow(head["map"], cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            spot.set(xticks=[], yticks=[])
            spot.spines[:].set_color(look.rule)
        title = f"{pair[0]['layer']}.{pair[0]['head']} {pair[0]['pattern']}"
        axes[0][column].set_title(title, fontsize=7.5, color=look.ink)
    for row, word in enumerate(("before", "after")):
        axes[row][0].set_ylabel(word, fontsize=8.5, color=look.ink)
    return figure
