"""Runs of `foci learn` in several processes, beside those in one."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import runs
from foci.system.files import read_lines
from foci.system.run_folder import ArmFolder, RunFolder

ARMS = {
    "plain": [],
    "several": [
        "oracle",
        {"lwf": {"below": 0.5}},
        {"l2_sp": {"strength": 0.1}},
        {"replay": {"ratio": 0.4, "samples": 4}},
        {"guidance": {"patterns": ["previous"]}},
    ],
}


def run_file(folder: Path, things: runs.Things, **changes) -> Path:
    return runs.run_file(folder, things, **{"adapter": {"dropout": 0.0}, "arms": ARMS, **changes})


def arms_of(out: Path) -> dict[str, ArmFolder]:
    """The folders of a run's arms, by name."""
    names = list(json.loads((out / "summary.json").read_text())["arms"])
    return {name: RunFolder(out, len(names)).arm(name) for name in names}


def outcome(out: Path) -> dict:
    """All that a run found, but for time, memory and padding."""
    summary = json.loads((out / "summary.json").read_text())
    for arm in summary["arms"].values():
        for name in ("seconds", "peak_memory_mib", "weights_sha256", "padding"):
            del arm[name]
    lines = {name: read_lines(arm.metrics) for name, arm in arms_of(out).items()}
    kept = [
        [{k: v for k, v in line.items() if k not in ("seconds", "padding")} for line in some] for some in lines.values()
    ]
    tables = [pq.read_table(path).to_pylist() for path in sorted(out.glob("**/probes/*.parquet"))]
    return {"corpus": summary["corpus"], "arms": summary["arms"], "metrics": kept, "answers": tables}


def assert_same(found, expected, place: str = "", rel: float = 2e-4) -> None:
    """Equal but for rounding, `rel` of a number."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for name in expected:
            assert_same(found[name], expected[name], f"{place}/{name}", rel)
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for n, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"{place}[{n}]", rel)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=2e-5), place
    else:
        assert found == expected, place


def assert_same_weights(out: Path, one: Path) -> None:
    for arm, folder in arms_of(one).items():
        files = [sorted(path.glob("*/*model.safetensors")) for path in (arms_of(out)[arm].path, folder.path)]
        ours, theirs = ({n: v for file in some for n, v in load_file(file).items()} for some in files)
        assert theirs
        assert ours.keys() == theirs.keys()
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], atol=2e-5, rtol=0)
