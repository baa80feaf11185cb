"""Sample rows of arms that contrast attention: that of both models, the difference, the chance to be dropped.

Read from `scores/*/contrast.json` in an arm's folder, which `foci score` and `foci learn` write; a run that was only
scored shows them too.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foci.report.read import Run

ROWS = 12
COLUMNS = ("tokens", "large", "small", "difference", "drop")


def contrasts(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the rows to show, at most `ROWS`: `source`, `row_id`, `lines` of coloured tokens with a `title`.

    A line's tokens have a `text`, a value `v` from -1 to 1 (the fuller the colour, the more; the first token, where
    idle heads look, does not set the scale) and a `note` with the number itself. Arms that compare the same models
    share the lines of attention and have one line each of chances. `names` are those of the runs.
    """
    rows: dict[str, dict[str, Any]] = {}
    for run, name in zip(runs, names, strict=True):
        for arm in run.arms:
            label = arm.name if len(runs) == 1 else f"{name}/{arm.name}"
            for sample in _samples(run.folder, arm.name):
                key = json.dumps([sample[column] for column in COLUMNS[:3]])
                row = rows.setdefault(key, _row(sample))
                row["lines"].append(_line(f"dropped, {label}", sample, sample["drop"], "chance to be dropped"))
    return list(rows.values())[:ROWS]


def _samples(folder: Path, arm: str) -> list[dict[str, Any]]:
    """Reads the complete rows of an arm's contrast.json."""
    found: list[dict[str, Any]] = []
    for place in (folder / "arms" / arm, folder):
        for file in sorted(place.glob("scores/*/contrast.json")):
            try:
                stored = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:  # a kill tore it; the next `foci learn` or `foci score` writes it again
                continue
            rows = stored.get("rows", []) if isinstance(stored, dict) else []
            found += [row for row in rows if _whole(row)]
        if found:
            break
    return found


def _whole(row: Any) -> bool:
    if not isinstance(row, Mapping) or not all(isinstance(row.get(column), list) for column in COLUMNS):
        return False
    return len({len(row[column]) for column in COLUMNS}) == 1


def _row(sample: Mapping[str, Any]) -> dict[str, Any]:
    received = "share of attention received"
    return {
        "row_id": sample.get("row_id", ""),
        "source": sample.get("source", ""),
        "lines": [
            _line("large model", sample, sample["large"], received, [*sample["large"][1:], *sample["small"][1:]]),
            _line("small model", sample, sample["small"], received, [*sample["large"][1:], *sample["small"][1:]]),
            _line("large − small", sample, sample["difference"], "difference", sample["difference"][1:]),  # noqa: RUF001
        ],
    }


def _line(
    title: str,
    sample: Mapping[str, Any],
    values: Sequence[int | float],
    unit: str,
    scale: Sequence[int | float] | None = None,
) -> dict[str, Any]:
    top = max((abs(value) for value in (values if scale is None else scale)), default=0.0) or 1.0
    return {
        "title": title,
        "tokens": [
            {
                "text": str(token).replace("\n", "⏎\n"),
                "v": round(max(-1.0, min(value / top, 1.0)), 3),
                "note": f"{unit} {value:.4f}",
            }
            for token, value in zip(sample["tokens"], values, strict=True)
        ],
    }
