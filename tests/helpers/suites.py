"""Suites of tiny models on disk, and what two results must have in common."""

import json
from pathlib import Path
from typing import Any

import yaml

import runs
from foci.bench.config import Suite, load_suite


def material(folder: Path) -> tuple[runs.Things, Path]:
    """A tiny model, a corpus and probes, and a file of held-out probes of both roles."""
    things = runs.material(folder)
    learn = [{**probe, "id": f"h{n}", "role": "learn"} for n, probe in enumerate(runs.questions()[3:6])]
    retain = [
        {**json.loads(line), "id": f"r{n}", "role": "retain"}
        for n, line in enumerate(things.retain.read_text().splitlines()[:2])
    ]
    return things, runs.write_lines(folder / "held_out.jsonl", [*learn, *retain])


def suite_file(folder: Path, things: runs.Things, held_out: Path | None, **changes: Any) -> Path:
    """Writes suite.yaml in `folder`: plain and oracle, seeds 0 and 1, 4 updates, probed every 2, output `out`."""
    train = {"epochs": None, "steps": 4, **changes.pop("train", {})}
    settings = yaml.safe_load(runs.run_file(folder, things, train=train).read_text())
    del settings["seed"]
    settings["output"] = "out"
    settings["probes"] |= {"every": 2, "held_out": str(held_out) if held_out else None, **changes.pop("probes", {})}
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(settings | {"seeds": [0, 1]} | changes, sort_keys=False))
    return path


def suite(folder: Path, things: runs.Things, held_out: Path | None, **changes: Any) -> Suite:
    return load_suite(suite_file(folder, things, held_out, **changes))


def lasting(value: Any) -> Any:
    """A table without what differs from run to run: seconds, memory, and the seal over them."""
    if isinstance(value, dict):
        return {key: lasting(part) for key, part in value.items() if key not in ("seconds", "peak_memory_mib", "seal")}
    return [lasting(part) for part in value] if isinstance(value, list) else value


def lasting_bytes(path: Path) -> bytes:
    return json.dumps(lasting(json.loads(path.read_text()))).encode()
