"""A tiny model and pairs on disk, for meta-trainings of a second."""

import json
from pathlib import Path

import yaml

import tiny

NAMES = ("Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Hugo")
TOWNS = ("Bern", "Paris", "Rome", "Oslo")


def material(folder: Path, *, uneven: bool = False) -> Path:
    """Writes `model` and pairs.jsonl, 32 pairs whose answers are marked; returns the folder.

    `uneven`: a third of the documents is twice as long, another three times.
    """
    tiny.save_model(folder / "model")
    lines = []
    for number in range(32):
        name, town = NAMES[number % 8], TOWNS[number // 8]
        days = 1 + (number % 3 if uneven else 0)
        text = f"{'The day was long. ' * days}{name} lives in {town}. It rained."
        start = text.index(town)
        lines.append(
            {
                "text": text,
                "prompt": f"The town of {name} is",
                "answer": town,
                "answer_spans": [[start, start + len(town)]],
            }
        )
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def settings(files: Path, output: Path) -> dict:
    """A meta-training of 3 epochs of 3 updates, 6 pairs held out."""
    return {
        "output": str(output),
        "model": {"name": str(files / "model"), "dtype": "float32"},
        "pairs": {"path": [str(files / "pairs.jsonl")], "held_out": 6, "max_length": 64},
        "train": {"epochs": 3, "batch_size": 8, "patience": 3},
    }


def run_file(files: Path, output: Path, **changes) -> Path:
    """Writes meta.yaml beside the output."""
    path = output.with_name(f"{output.name}.yaml")
    path.write_text(yaml.safe_dump({**settings(files, output), **changes}))
    return path
