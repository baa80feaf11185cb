"""The same pretraining at every learning rate and warm-up of a grid, to see whether arms rank alike everywhere.

    pretrain.yaml      the file
    points/<point>/    a pretraining each, as in `run`
    grid.json          the last held-out loss of every arm at every point
    grid.md, grid.svg  the same as a table and as a picture (.png too)

are in the folder of a pretraining with a `grid`.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from rich.console import Console

from foci.config.run import dump_run
from foci.pretrain.config import Pretraining
from foci.pretrain.plots import draw_grid
from foci.pretrain.run import PRETRAINING, pretrain
from foci.pretrain.table import words
from foci.report import tables
from foci.system.files import write_json, write_text
from foci.system.folder import claim


def points(run: Pretraining) -> list[Pretraining]:
    """Returns a pretraining for every point of the grid, each with its own folder: rates first, then warm-ups."""
    if run.grid is None:
        raise ValueError(f"pretraining {run.name} has no grid; write grid: {{learning_rate: [...], warmup: [...]}}")
    found = []
    for rate, warmup in product(run.grid.learning_rate, run.grid.warmup):
        name = f"rate-{_shown(rate)}-warmup-{_shown(warmup)}"
        changes = {"name": f"{run.name}, {name}", "output": run.output / "points" / name, "grid": None}
        train = run.train.model_copy(update={"learning_rate": rate, "warmup": warmup})
        found.append(run.model_copy(update={**changes, "train": train}))
    return found


def _shown(value: float) -> str:
    """Writes a number in six digits, or in all that it has: two points need two names."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def over_grid(run: Pretraining, *, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Trains every arm with every seed at every point where that was not done before; gives grid.json's contents.

    Errors as in `pretrain`.
    """
    with claim(run.output, PRETRAINING):
        write_text(run.output / "pretrain.yaml", dump_run(run))
        found = [(point, pretrain(point, overwrite=overwrite, console=console)) for point in points(run)]
        grid = gathered(run, found)
        write_json(run.output / "grid.json", grid, sealed=True)
        write_text(run.output / "grid.md", markdown(grid))
        draw_grid(grid, run.output)
    return grid


def gathered(run: Pretraining, found: list[tuple[Pretraining, dict[str, Any]]]) -> dict[str, Any]:
    """Collects the last losses of all points; per arm the lowest, the highest, how often below `run.baseline`."""
    rows: list[dict[str, Any]] = [
        {
            "learning_rate": point.train.learning_rate,
            "warmup": point.train.warmup,
            "arms": {arm: {name: of[name] for name in ("nats", "step_ratio")} for arm, of in table["arms"].items()},
        }
        for point, table in found
    ]
    arms = {}
    for arm in run.arms:
        means = [row["arms"][arm]["nats"]["mean"] for row in rows]
        gaps = [row["arms"][arm]["nats"]["difference"].get("mean") for row in rows]
        known = [gap for gap in gaps if gap is not None]
        arms[arm] = {
            "best": min(means),
            "worst": max(means),
            "below_baseline": sum(gap < 0 for gap in known) if known else None,
            "difference": sum(known) / len(known) if known else None,
        }
    return {
        "name": run.name, "objective": run.objective, "baseline": run.baseline, "seeds": list(run.seeds),
        "steps": run.train.steps, "points": rows, "arms": arms,
    }  # fmt: skip


def markdown(grid: Mapping[str, Any]) -> str:
    """Returns the grid in Markdown: one line per point, one column per arm, and a summary per arm."""
    arms, base = list(grid["arms"]), grid["baseline"]
    others = [arm for arm in arms if arm != base] if base else []
    heads = ["learning rate", "warm-up", *arms, *(f"{arm}, difference" for arm in others)]
    rows = [
        [
            f"{point['learning_rate']:g}",
            f"{point['warmup']:g}",
            *(words(point["arms"][arm]["nats"]) for arm in arms),
            *(words(point["arms"][arm]["nats"]["difference"], signed=True) for arm in others),
        ]
        for point in grid["points"]
    ]
    lines = [
        f"# {tables.marked(grid['name'])}",
        "",
        f"Held-out loss after the last update, {grid['objective']} objective, nats per predicted token; means over "
        f"seeds {', '.join(map(str, grid['seeds']))}, differences from {base or 'nothing'} paired by seed.",
        "",
        tables.markdown(tables.Table(heads, rows, "r" * len(heads))),
        "",
    ]
    for arm, of in grid["arms"].items():
        below = "" if arm not in others else f"; below {base} at {of['below_baseline']} of {len(grid['points'])} points"
        lines.append(f"- {arm}: best {of['best']:.3f}, worst {of['worst']:.3f}{below}")
    return "\n".join([*lines, ""])
