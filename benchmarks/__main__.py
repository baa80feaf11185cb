"""python -m benchmarks [NAME...] [--quick]: runs the benchmarks, prints a table, writes results.json."""

import argparse
import importlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foci.system.machine import machine, versions

NAMES = (
    "step",
    "lean",
    "passes",
    "sparse",
    "imitates",
    "loss",
    "padding",
    "probing",
    "influence",
    "gradnorm",
    "attention",
    "documents",
    "chat",
    "checkpoint",
)
RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Speed and memory, each beside its rival."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all if none is given")
    parser.add_argument(
        "--quick", action="store_true", help="few repetitions, not for publishing; results.json stays as it is"
    )
    chosen = parser.parse_args()
    names = chosen.names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = {}
    for name in names:
        found[name] = measured(name, chosen.quick)
        for line in lines(name, found[name]):
            print(line, flush=True)
    if not chosen.quick:
        write(found)
    print("\n" + table(found))


def measured(name: str, quick: bool) -> dict[str, Any]:
    """One benchmark's results with the date, the machine and how busy it was."""
    load, begun = os.getloadavg()[0], time.perf_counter()
    results = importlib.import_module(f"benchmarks.{name}").run(quick)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - begun, 1),
        "load_before": round(load, 2),
        "machine": machine(),
        "versions": versions(),
        "results": [result.as_json() for result in results],
    }


def write(found: dict[str, Any]) -> None:
    """Replaces what was measured, keeps the other benchmarks' results."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    merged = {name: (known | found)[name] for name in NAMES if name in known | found}
    RESULTS.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def lines(name: str, made: dict[str, Any]) -> list[str]:
    """A line per result for people who wait."""
    return [f"{name}: {r['what']}: {ratio(r)}, {goal(r)}" for r in made["results"]]


def table(found: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    rows = [
        "| what | foci | rival | unit | ratio: median (min..max) | goal | |",
        "|---|---:|---:|---|---|---|---|",
    ]
    rows += [
        f"| {r['what']} | {r['ours']['median']:.4g} | {r['theirs']['median']:.4g} ({r['rival']}) | {r['unit']} "
        f"| {ratio(r)} | {goal(r)} | {r['note']} |"
        for made in found.values()
        for r in made["results"]
    ]
    return "\n".join(rows)


def ratio(result: dict[str, Any]) -> str:
    spread = result["ratio"]
    return f"{spread['median']:.3f} ({spread['min']:.3f}..{spread['max']:.3f})"


def goal(result: dict[str, Any]) -> str:
    return "no goal" if result["goal"] is None else f"<= {result['goal']:g}: {'met' if result['met'] else 'MISSED'}"


if __name__ == "__main__":
    main()
