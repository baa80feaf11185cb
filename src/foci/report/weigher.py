"""The page of a meta-training: the targets of the weigher, what it learned, and where its weight lies."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foci.report.templates import render
from foci.report.tokens import coloured, spread

READINGS = {
    "before": "before meta-training",
    "after": "after meta-training",
    "influence": "what a step would teach",
}
"""Columns of a line of samples.json. The last is the target of amortised training; the paper's loop has none."""


def is_weigher(folder: Path) -> bool:
    """Tells whether `foci meta` wrote this folder."""
    return (folder / "meta.yaml").is_file()


def page(folder: Path) -> str:
    """Returns the page as text; it runs no script. Raises ValueError where the training has not ended."""
    summary, samples = _read(folder / "summary.json"), _relative(_read(folder / "samples.json"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return render(
        "weigher.html.j2",
        name=folder.resolve().name,
        summary=summary,
        epochs=[json.loads(line) for line in lines],
        spread=_spread(samples),
        samples=[_sample(sample) for sample in samples],
        yaml=(folder / "meta.yaml").read_text(encoding="utf-8"),
    )


def _read(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(
            f"{file.parent} holds a meta-training that has not ended (no {file.name}); go on with foci meta --resume"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def _relative(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Scales the samples so that the largest weight of each reading is 1: a step does not depend on the scale."""
    tops = {
        key: max(max(sample[key][1:], default=0) for sample in samples if key in sample) or 1
        for key in READINGS
        if any(key in sample for sample in samples)
    }
    return [{**sample, **{key: [w / top for w in sample[key]] for key, top in tops.items()}} for sample in samples]


def _readings(sample: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Returns (name, sample with these weights) for every column of weights that a sample has."""
    return [(words_, {**sample, "weights": sample[key]}) for key, words_ in READINGS.items() if key in sample]


def _spread(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        for name, reading in _readings(sample):
            by_name.setdefault(name, []).append(reading)
    return spread(list(by_name.items()))


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    readings = [
        {"index": index, "name": name, "tokens": coloured(reading)}
        for index, (name, reading) in enumerate(_readings(sample))
    ]
    return {"asked": sample["asked"], "answer": sample["answered"], "readings": readings}
