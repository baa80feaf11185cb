"""The report's part on layers: what is drawn of a profile, and that a run without one, or a torn one, shows none."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from fake_run import write_run
from foci.report import layers
from foci.report.write import runs_page

MODES = {"frozen": 1.0, "adaptive": 0.5}


def profile(rate: float, count: int = 6, words: str = "profile: early 1.20, middle 1.00, late 0.80") -> dict[str, Any]:
    """A profile of embeddings, `count` layers and a norm; layer n has R = n + 1, the rate is n times `rate`."""
    names = ["embeddings", *(f"layers.{n}" for n in range(count)), "norm"]
    blocks = [
        {
            "block": name, "rate": rate * n, "relative": n + 0.0, "relative_low": n - 0.25, "relative_high": n + 0.25,
            "control": 1.0, "control_low": 0.5, "control_high": 1.5,
        }
        for n, name in enumerate(names)
    ]  # fmt: skip
    spans = {"from": "probes of trace.jsonl", "count": 64, "tokens": 128}
    return {"told": words, "spans": spans, "reference": {"rows": 64, "tokens": 8192}, "blocks": blocks}


def run(folder: Path, profiles: dict[str, Any], evil: str = "") -> Path:
    """A made-up run whose arms (and `plain`) have these profiles."""
    made = write_run(folder, arms=["plain", *profiles], probes=8, evil=evil)
    for arm, value in profiles.items():
        file = made / "arms" / arm / "scores" / "0-gradprofile" / "profile.json"
        file.parent.mkdir(parents=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value))
    return made


def test_layers_and_rates_are_drawn_once_per_profile(tmp_path):
    """Two arms of one profile share a figure; every arm has its line of rates."""
    page = runs_page([run(tmp_path / "run", {name: profile(r) for name, r in MODES.items()})])
    assert page.count("Relative gradient norm by layer: frozen, adaptive") == 1
    assert page.count("<b>Relative gradient norm") == 1
    assert "Learning rates by layer" in page
    assert 'href="#layers"' in page
    assert "64 spans, probes of trace.jsonl; 64 rows of ordinary text" in page
    tips = re.findall(r'data-tip="([^"]*)"', page)
    assert "layers.2 · 3.00 [2.75, 3.25] · random spans 1.00 [0.50, 1.50]" in tips
    assert "frozen · layers.2 · rate x 3.00" in tips
    assert "adaptive · layers.2 · rate x 1.50" in tips
    assert sum(tip.startswith(("frozen · l", "adaptive · l")) for tip in tips) == 12
    assert not [tip for tip in tips if "embeddings" in tip]


def test_figures_have_values_where_they_belong():
    """R grows by 1 a layer: its points lie on a line, to the right and up; bands are drawn for both."""
    svg = ET.fromstring(str(layers.norms(profile(1.0)["blocks"][1:-1], 0, "k")))
    points = {node.get("id"): node for node in svg.iter("g") if (node.get("id") or "").startswith("k-n")}
    assert len(points) == 6
    uses = [next(points[f"k-n{n}"].iter("use")) for n in range(6)]
    x, y = ([float(use.get(axis)) for use in uses] for axis in ("x", "y"))
    steps = [(x[n + 1] - x[n], y[n] - y[n + 1]) for n in range(5)]
    assert all(step == pytest.approx(steps[0], rel=1e-3) for step in steps)
    assert min(steps[0]) > 0
    assert sum((node.get("id") or "").startswith("k-FillBetween") for node in svg.iter("g")) == 2


def test_a_run_without_profiles_has_no_such_section(tmp_path):
    page = runs_page([run(tmp_path / "run", {})])
    assert "layers" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().split("<script>")[0]


@pytest.mark.parametrize("torn", ['{"blocks": [{"block"', '{"blocks": 3}', '{"blocks": ["x"]}', "[]"])
def test_a_torn_profile_costs_no_report(tmp_path, torn):
    page = runs_page([run(tmp_path / "run", {"frozen": torn, "adaptive": profile(0.5)})])
    assert "Relative gradient norm by layer: adaptive" in page


def test_words_of_a_profile_are_only_words(tmp_path):
    evil = "</script><img src=x onerror='window.evil=1'>"
    page = runs_page([run(tmp_path / "run", {"frozen": profile(1.0, words=evil)})])
    assert "<img" not in page
    assert "&lt;img src=x" in page
