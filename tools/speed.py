"""Writes the table of docs/results/speed.md and draws docs/pictures/growth.svg, both from benchmarks/results.json."""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "results" / "speed.md"
PICTURE = ROOT / "docs" / "pictures" / "growth.svg"
BEGIN, END = "<!-- table: made by tools/speed.py -->", "<!-- /table -->"
OURS, THEIRS = "#c2500c", "#0b6fb3"
PANELS = {
    "length": "length of rows\n(tokens, 4 rows)",
    "rows": "rows of an update\n(128 tokens each)",
    "vocabulary": "vocabulary\n(4 rows of 128 tokens)",
    "probes": "probes\n",
}


def found() -> dict[str, Any]:
    """Returns what the benchmarks measured, by their names."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def page() -> str:
    """Returns the page with its table and the words about the machine made anew."""
    from benchmarks.__main__ import SECONDS
    from benchmarks.table import table

    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    left = ", ".join(name for name in SECONDS if name not in found())
    words = f"{measured(found())} Not measured yet: {left}." if left else measured(found())
    return f"{head}{BEGIN}\n{words}\n\n{table(found())}\n{END}{rest.split(END)[1]}"


def measured(results: dict[str, Any]) -> str:
    """Returns when, where and with what the results were measured, and how busy the machine was."""
    days = sorted({made["date"][:10] for made in results.values()})
    machines = sorted({told(made) for made in results.values()})
    loads = [made[when] for made in results.values() for when in ("load_before", "load_after")]
    seconds = sum(made["seconds"] for made in results.values())
    return (
        f"Measured on {' and '.join(days)} in {seconds / 60:.0f} minutes; {'; '.join(machines)}. "
        f"Load of the machine before and after each benchmark: {min(loads):.1f} to {max(loads):.1f}."
    )


def told(made: dict[str, Any]) -> str:
    """Returns the machine and the versions of one benchmark in words."""
    machine, versions = made["machine"], made["versions"]
    device = "no GPU" if machine["device"] == "cpu" else machine["device"]
    libraries = ", ".join(
        f"{words} {versions[name]}"
        for name, words in (("torch", "torch"), ("transformers", "Transformers"), ("peft", "PEFT"), ("trl", "TRL"))
        if name in versions
    )
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    return f"{machine['processor']}, {machine['cores']} cores, {device}, {threads}, {libraries}"


def curves() -> dict[str, list[dict[str, Any]]]:
    """Returns the curves of time and of memory by what grows."""
    made: dict[str, list[dict[str, Any]]] = {}
    for result in found()["growth"]["results"]:
        made.setdefault(result["curve"]["name"], []).append(result)
    return made


def draw(path: Path) -> None:
    """Writes the picture as SVG: a column for each thing that grows, time above and memory below."""
    from foci.report.style import svg

    figure = Figure(figsize=(9.2, 4.7), layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(PANELS), sharex="col")
    for column, (name, label) in enumerate(PANELS.items()):
        for row, result in enumerate(curves()[name]):
            panel(axes[row][column], result)
        axes[1][column].set_xlabel(label)
    axes[0][0].set_ylabel("time, processor s")
    axes[1][0].set_ylabel("memory of tensors, MiB")
    lines, words = axes[0][0].get_legend_handles_labels()
    figure.legend(lines[::-1], words[::-1], loc="outside upper center", ncols=2, frameon=False, fontsize=10)
    path.write_text(svg(figure, "growth"), encoding="utf-8")


def panel(axes: Axes, result: dict[str, Any]) -> None:
    """Draws one curve of foci and one of its rival on two logarithmic axes."""
    from foci.report.style import framed

    curve = result["curve"]
    framed(axes)
    own: dict[str, Any] = {"linewidth": 1.6, "markersize": 4.5}
    rival = "rival: Transformers' Trainer; probes one by one"
    axes.plot(curve["sizes"], curve["rival"], "s--", color=THEIRS, label=rival, **own)
    axes.plot(curve["sizes"], curve["foci"], "o-", color=OURS, label="foci", **own)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(curve["sizes"][::2])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1024:g}k" if x >= 4096 else f"{x:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = (pick(*curve["foci"], *curve["rival"]) for pick in (min, max))
    ticks = [n * 10**power for power in range(-3, 5) for n in (1, 2, 5)]
    inside = [tick for tick in ticks if low * 0.8 <= tick <= high * 1.25]
    axes.set_yticks(inside if len(inside) < 7 else inside[::2])
    axes.yaxis.set_minor_locator(NullLocator())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    draw(PICTURE)
